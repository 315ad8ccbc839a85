package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The environment of a process of attackers: what they attack, as JSON.
const attackersEnv = "KEYWARD_TORTURE_ATTACKERS"

// attackers are a process of their own, of the lowest priority: elsewhere they do not share the sidecar's cores, nor those of its callers.
type attackers struct {
	Address, Token string
	Connections    int
	Lasts          time.Duration

	attacks, connected atomic.Int64
}

// attack runs the attackers as a process until they are through, and adds what they did.
func (o *overload) attack(t *testing.T, n int, lasts time.Duration) {
	t.Helper()
	orders, err := json.Marshal(&attackers{Address: o.s.tcp, Token: o.token, Connections: n, Lasts: lasts})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), attackersEnv+"="+string(orders))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var attacks, connected int64
	if err == nil {
		_, err = fmt.Sscan(string(out), &attacks, &connected)
	}
	if err != nil {
		t.Fatalf("the attackers: %v", err)
	}
	o.attacks += attacks
	o.connected += connected
}

// attackAs is what the process does; it prints how often it tried, and how often it got a connection.
func attackAs(orders string) int {
	var a attackers
	err := json.Unmarshal([]byte(orders), &a)
	if err == nil {
		err = lowestPriority()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a.attack(a.Connections, a.Lasts)
	fmt.Println(a.attacks.Load(), a.connected.Load())
	return 0
}

// lowestPriority is for each thread there is: new ones take it from the one that makes them.
func lowestPriority() error {
	threads, err := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		var id int
		if _, err := fmt.Sscan(t.Name(), &id); err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, 19); err != nil {
			return err
		}
	}
	return err
}

// attack keeps n connections busy for so long. Who is thrown out comes back.
func (a *attackers) attack(n int, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			for ctx.Err() == nil {
				a.attackOnce(ctx, i)
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	wait.Wait()
}

func (a *attackers) attackOnce(ctx context.Context, i int) {
	a.attacks.Add(1)
	d := net.Dialer{Timeout: 2 * time.Second}
	c, err := d.DialContext(ctx, "tcp", a.Address)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	a.connected.Add(1)
	head := "POST /resend/emails HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nKeyward-Token: " + a.Token + "\r\n"
	switch i % 5 {
	case 0: // a head, byte by byte
		a.drip(ctx, c, head+strings.Repeat("X-More: and more\r\n", 100))
	case 1: // a body, byte by byte
		_, _ = io.WriteString(c, head+"Content-Length: 100000\r\n\r\n")
		a.drip(ctx, c, strings.Repeat("b", 100000))
	case 2: // a large answer, hardly read
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		_, _ = io.WriteString(c, strings.Replace(head, "POST /resend/emails", "GET /resend/big", 1)+"\r\n")
		for one := make([]byte, 1); ctx.Err() == nil; {
			if _, err := c.Read(one); err != nil {
				return
			}
			sleep(ctx, 300*time.Millisecond)
		}
	case 3: // nothing at all
		_, _ = c.Read(make([]byte, 1))
	case 4: // many small requests for pieces, whose answers nobody reads
		pieces := strings.Replace(head, "POST /resend/emails", "GET /resend/emails", 1) + "Range: bytes=" + strings.Repeat("0-0,", 200) + "1-1\r\n\r\n"
		for ctx.Err() == nil {
			if _, err := io.WriteString(c, strings.Repeat(pieces, 4)); err != nil {
				return
			}
			sleep(ctx, 500*time.Millisecond)
		}
	}
}

// drip sends text byte by byte.
func (a *attackers) drip(ctx context.Context, c net.Conn, text string) {
	for i := 0; i < len(text) && ctx.Err() == nil; i++ {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		sleep(ctx, 300*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
