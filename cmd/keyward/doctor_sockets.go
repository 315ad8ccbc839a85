package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/admin"
)

// checkSockets looks at the run folder, at both sockets, and at what the sidecar behind them says of itself.
func (d *doctor) checkSockets(ctx context.Context) []finding {
	all := []finding{runDirFinding(d.c.RunDir)}
	if d.c.Socket != "" {
		all = append(all, d.socketFinding(ctx, "caller socket", d.c.Socket, os.FileMode(d.c.SocketMode), d.c.SocketGID))
	}
	if d.c.AdminSocket == "" {
		return all
	}
	f := d.socketFinding(ctx, "admin socket", d.c.AdminSocket, 0o600, -1)
	all = append(all, f)
	if f.Status != isFail && strings.HasSuffix(f.Saw, listens) {
		all = append(all, d.readyFindings(ctx)...)
	}
	return all
}

func runDirFinding(dir string) finding {
	const name = "run folder"
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return warn(name, dir+" is not there yet", "nothing to do: the start makes it, with mode 0700")
	case err != nil:
		return fail(name, err.Error(), "give the sidecar's user a way to it, or choose another --run-dir")
	}
	if err := isPrivateFolder(dir); err != nil {
		return fail(name, err.Error(), "chmod go-w "+dir+", chown it to the sidecar's user, or choose another --run-dir")
	}
	return ok(name, "%s, mode %04o", dir, st.Mode().Perm())
}

const listens = ", somebody listens"

func (d *doctor) socketFinding(ctx context.Context, name, path string, mode fs.FileMode, gid int) finding {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return warn(name, "nothing at "+path+": no sidecar runs with this configuration", "start it: keyward serve")
	case err != nil:
		return fail(name, err.Error(), "be root or the sidecar's own user")
	case st.Mode().Type() != os.ModeSocket:
		return fail(name, path+" is "+describe(st.Mode())+" and no socket", "move it away, or choose another path")
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(name, path+" is there, but the process that made it is gone", "start the sidecar again, which takes the socket away by itself: keyward serve; its log says why it ended")
	case errors.Is(err, fs.ErrPermission):
		return fail(name, "no permission for "+path, "be root, the sidecar's own user, or of the group of --socket-group")
	case err != nil:
		return fail(name, err.Error(), "see what the process behind it does: its queue may be full")
	}
	_ = conn.Close()
	sys := st.Sys().(*syscall.Stat_t)
	switch {
	case st.Mode().Perm() != mode:
		return warn(name, fmt.Sprintf("%s has mode %04o, not %04o%s", path, st.Mode().Perm(), mode, listens), "start the sidecar again with these settings, or chmod it")
	case gid >= 0 && int(sys.Gid) != gid:
		return warn(name, fmt.Sprintf("%s belongs to group %d, not %d%s", path, sys.Gid, gid, listens), "start the sidecar again with these settings, or chgrp it")
	}
	return ok(name, "%s, mode %04o, uid %d%s", path, st.Mode().Perm(), sys.Uid, listens)
}

// readyFindings is /readyz?verbose, line by line.
func (d *doctor) readyFindings(ctx context.Context) []finding {
	const name = "sidecar"
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	client := admin.NewClient(d.c.AdminSocket)
	defer client.Close()
	_, says, err := client.Ready(ctx)
	if err != nil {
		return []finding{fail(name, explainReach(err, d.c.AdminSocket).Error(), "see what listens there: it does not answer as a Keyward does")}
	}
	var all []finding
	for line := range strings.Lines(says) {
		what := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(what, "[-]"):
			all = append(all, fail(name, what[3:], "see its log; docs/troubleshooting.md goes by the error's text"))
		case strings.HasPrefix(what, "[!]"):
			all = append(all, warn(name, what[3:], "it goes on with what it has, see docs/outages.md; its log says more"))
		}
	}
	if len(all) == 0 {
		all = append(all, ok(name, "ready: %s", strings.Join(strings.Fields(strings.ReplaceAll(says, "[+]", "")), " ")))
	}
	return all
}

// checkListeners looks who has the TCP addresses.
func (d *doctor) checkListeners(ctx context.Context) []finding {
	addresses := [][2]string{{"listen", d.c.Listen}, {"webhook-listen", d.c.WebhookListen}, {"admin-listen", d.c.AdminListen}}
	for i, l := range d.c.Listeners {
		addresses = append(addresses, [2]string{fmt.Sprintf("listeners[%d]", i), l.Address})
	}
	all := []finding{}
	for _, a := range addresses {
		if a[1] != "" {
			all = append(all, listenerFinding(ctx, a[0], a[1]))
		}
	}
	return all
}

func listenerFinding(ctx context.Context, name, address string) finding {
	ctx, cancel := context.WithTimeout(ctx, askWithin/2)
	defer cancel()
	if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		return ok(name, "%s: any free port", address)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		if err := bindable(ctx, address); err != nil {
			return fail(name, fmt.Sprintf("%s cannot be listened on: %v", address, plainNetError(err)), "choose an address of this machine, and a port from 1024 on or the right to lower ones")
		}
		return ok(name, "%s is free", address)
	}
	defer conn.Close()
	if isKeyward(ctx, conn) {
		return ok(name, "%s is held by a Keyward", address)
	}
	return fail(name, address+" is held by another program", "end that (ss -ltnp says which it is), or choose another address by --"+name)
}

// isKeyward asks with a request that changes nothing anywhere: every answer of ours says whose it is, the admin API by its /healthz.
func isKeyward(ctx context.Context, conn net.Conn) bool {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+conn.RemoteAddr().String()+"/healthz", nil)
	if err != nil || req.Write(conn) != nil {
		return false
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	for name := range resp.Header {
		if strings.HasPrefix(name, "Keyward-") {
			return true
		}
	}
	return false
}

// bindable says why nobody could listen on the address. It binds and does not listen, which keeps nobody else from it: a sidecar that
// starts at this very moment is not in the way of this, nor this in its.
func bindable(ctx context.Context, address string) error {
	a, err := net.DefaultResolver.LookupNetIP(ctx, "ip", hostOf(address))
	if err != nil || len(a) == 0 {
		return err
	}
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: tcp.Port, Addr: a[0].As16()})
	if ip := a[0].Unmap(); ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port, Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil // no sockets of this family: the start says so
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.Bind(fd, to)
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if host == "" {
		return "0.0.0.0"
	}
	return host
}

// plainNetError is an error of the network without the addresses, which the message names already.
func plainNetError(err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// checkLimits looks at what the process would be granted.
func (d *doctor) checkLimits(context.Context) []finding {
	listeners := 0
	for _, on := range []string{d.c.Socket, d.c.Listen, d.c.WebhookListen} {
		if on != "" {
			listeners++
		}
	}
	listeners += len(d.c.Listeners)
	need := uint64(listeners)*uint64(d.c.MaxConns)*2 + 64
	all := []finding{filesFinding(need), clockFinding(time.Now())}
	for _, setting := range strings.Split(os.Getenv("GODEBUG"), ",") {
		name, value, _ := strings.Cut(setting, "=")
		if (name == "clobberfree" || name == "asyncpreemptoff") && value != "1" {
			all = append(all, warn("runtime", "GODEBUG has "+setting+", which leaves secrets in memory for longer", "take "+name+" out of GODEBUG"))
		}
	}
	return all
}

// filesFinding compares with a connection to the provider for each of a caller's.
func filesFinding(need uint64) finding {
	const name = "open files"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warn(name, err.Error(), "see ulimit -n")
	}
	if limit.Max < need {
		return warn(name, fmt.Sprintf("at most %d here, and --max-conns may need %d", limit.Max, need),
			fmt.Sprintf("LimitNOFILE=%d in the unit, ulimit -Hn, or a lower --max-conns", need))
	}
	return ok(name, "at most %d here, %d needed for --max-conns", limit.Max, need)
}

// clockFinding knows the past alone: it is not earlier than the commit that this program was built from.
func clockFinding(now time.Time) finding {
	const name = "clock"
	built, err := time.Parse(time.RFC3339, thisBuild().Time)
	if err != nil {
		built = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if now.Before(built.Add(-24 * time.Hour)) {
		return fail(name, now.UTC().Format(time.RFC3339)+", before this program was made", "set the clock, and see that NTP runs: certificates and webhooks' timestamps are checked against it")
	}
	return ok(name, "%s", now.UTC().Format(time.RFC3339))
}
