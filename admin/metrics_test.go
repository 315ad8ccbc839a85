package admin

import (
	"io"
	"net/http"
	"testing"
)

// Nobody is asked who he is for what holds no org and no secret.
func TestMetricsAreServedWhereThereAreAny(t *testing.T) {
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = io.WriteString(w, "keyward_up 1\n")
		})
	})
	if a := s.must(200, "GET", "/metrics", ""); a.body != "keyward_up 1\n" {
		t.Errorf("%q", a.body)
	}
}
