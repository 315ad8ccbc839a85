package store

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyward/keyward/internal/pgtest"
)

// A server that takes connections and says nothing is waited for once; then the one that answered comes first.
func TestSilentServerIsPassedBy(t *testing.T) {
	hasty(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	url := pgtest.New(t)
	postgres(t, url)
	_, port, err := net.SplitHostPort(silent.Addr().String())
	ok(t, err)
	both := strings.Replace(url, "host=", "sslmode=disable&connect_timeout=1&port="+port+",5432&host=127.0.0.1,", 1)
	d := engine{"postgres", both}.open(t)

	eventually(t, "the second server serves", func() bool { return d.Ping(t.Context()) == nil })
	same(t, d.pg.servers.first.Load(), int32(1))
	// A new connection does not wait for the silent one again: that would be a second each time.
	fastest := time.Hour
	for range 10 {
		began := time.Now()
		c, err := d.pg.gate.Connect(t.Context())
		if err != nil {
			continue // a busy machine takes more than the second, too
		}
		fastest = min(fastest, time.Since(began))
		ok(t, c.Close())
		if fastest < time.Second/2 {
			return
		}
	}
	t.Errorf("connecting took %v at least", fastest)
}

// Each host keeps its own alternatives of TLS; several must be able to write, unless the URL says otherwise.
func TestServersOfAURL(t *testing.T) {
	for _, tc := range []struct {
		url    string
		hosts  []string
		writes bool
	}{
		{"postgres://u@a/db?sslmode=disable", []string{"a:5432"}, false},
		{"postgres://u@a:1,b:2/db?sslmode=disable", []string{"a:1", "b:2"}, true},
		{"postgres://u@a:1,b:2/db?sslmode=prefer", []string{"a:1 tls +1", "b:2 tls +1"}, true},
		{"postgres://u@a:1,b:2,c:3/db?sslmode=require", []string{"a:1 tls", "b:2 tls", "c:3 tls"}, true},
		{"postgres://u@a:1,b:2/db?sslmode=disable&target_session_attrs=any", []string{"a:1", "b:2"}, false},
	} {
		config, err := pgx.ParseConfig(tc.url)
		ok(t, err)
		var hosts []string
		for _, one := range newServers(config, tc.url).each {
			host := net.JoinHostPort(one.Host, strconv.Itoa(int(one.Port)))
			if one.TLSConfig != nil {
				host += " tls"
			}
			if len(one.Fallbacks) > 0 {
				host += " +" + strconv.Itoa(len(one.Fallbacks))
			}
			hosts = append(hosts, host)
			same(t, one.ValidateConnect != nil, tc.writes)
		}
		same(t, hosts, tc.hosts)
	}
}
