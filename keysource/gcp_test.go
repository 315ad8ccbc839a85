package keysource

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyward/keyward/seal"
)

// A metadata server that takes connections and does not answer is waited for no longer than any service is.
func TestGoogleMetadataServerThatHangs(t *testing.T) {
	f := fakeGCP(t)
	s := f.at(filepath.Join(t.TempDir(), "keys.json"))
	if err := s.Create(t.Context(), seal.Generate()); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel connects, and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", silent.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Load(ctx)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second): // the library by itself takes a minute
		t.Error("it goes on when its context has ended")
	}
}
