package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// servers are the hosts that a URL names, one of which is the primary. The one that answered last is asked first: the others may be standbys,
// or dead in a way that takes the whole time limit to find out.
type servers struct {
	each  []*pgx.ConnConfig
	first atomic.Int32
}

// newServers takes a URL's configuration apart. With several hosts a connection must be one that can write, unless the URL says otherwise by
// target_session_attrs: a standby answers too, but with what was true a moment ago, and takes no change.
func newServers(config *pgx.ConnConfig, url string) *servers {
	s := &servers{}
	alternatives := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	for i, a := range alternatives {
		if last := len(s.each) - 1; i > 0 && s.each[last].Host == a.Host && s.each[last].Port == a.Port {
			s.each[last].Fallbacks = append(s.each[last].Fallbacks, a) // the same without TLS, or with it
			continue
		}
		one := config.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks = a.Host, a.Port, a.TLSConfig, nil
		s.each = append(s.each, one)
	}
	if len(s.each) > 1 && !strings.Contains(url, "target_session_attrs=") {
		for _, one := range s.each {
			one.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		}
	}
	return s
}

// patience is how long it may take to hear from each of them, when one is given so long.
func (s *servers) patience(one time.Duration) time.Duration { return time.Duration(len(s.each)) * one }

// connect has one server after the other tried, until one is reached.
func (s *servers) connect(ctx context.Context, try func(ctx context.Context, i int) error) error {
	first := int(s.first.Load())
	var failures []error
	for n := range s.each {
		i := (first + n) % len(s.each)
		err := try(ctx, i)
		if err == nil {
			s.first.Store(int32(i))
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(failures) == 1 {
		return failures[0]
	}
	return fmt.Errorf("none of %d servers can be used: %w", len(s.each), errors.Join(failures...))
}
