package proxy

import (
	"strings"
	"testing"
)

func TestChunkFraming(t *testing.T) {
	run := func(body string, step int) *headError {
		w := chunkWatch{state: chunkSizes}
		for len(body) > 0 {
			n := min(step, len(body))
			if err := w.look([]byte(body[:n])); err != nil {
				return err
			}
			body = body[n:]
		}
		return nil
	}
	for body, ok := range map[string]bool{
		"5\r\nhello\r\n0\r\n\r\n":                           true,
		"5;a=b\r\nhello\r\n0\r\n\r\n":                       true,
		"005\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\nGET /": true,
		"0\r\n\r\n":                                       true,
		"0\r\nX-Trailer: 1\r\n\r\n":                       true, // refused elsewhere
		"5 \r\nhello\r\n0\r\n\r\n":                        false,
		"5\t\r\nhello\r\n0\r\n\r\n":                       false,
		"5;a=\x00\r\nhello\r\n0\r\n\r\n":                  false,
		"5;" + strings.Repeat("x", 300) + "\r\nhello\r\n": false,
		"5\nhello\r\n0\r\n\r\n":                           false,
		"5\r\nhello\n0\r\n\r\n":                           false,
		"5\r\nhelloX\r\n0\r\n\r\n":                        false,
		"5\r\nhello\r\n0\r\n\n":                           false,
		"\r\nhello\r\n":                                   false,
		"-1\r\n":                                          false,
		"0x5\r\nhello\r\n":                                false,
		"FFFFFFFFFFFFFFFFF\r\n":                           false,
		" 5\r\nhello\r\n":                                 false,
	} {
		for _, step := range []int{1, 3, 1000} {
			if err := run(body, step); (err == nil) != ok {
				t.Errorf("%.40q in steps of %d: %v", body, step, err)
			}
		}
	}
}

// TestBadChunksAreNotForwarded: the caller gets a 400 and a closed connection, the provider no whole request.
func TestBadChunksAreNotForwarded(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for _, body := range []string{"5 \r\nhello\r\n0\r\n\r\n", "5;a=\x00\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\n"} {
		resp := w.raw("unix", "POST /vapi/x HTTP/1.1\r\n"+orgLine+"Transfer-Encoding: chunked\r\n\r\n"+body)
		if n, _ := peer.count(); resp.StatusCode != 400 || !resp.Close || n != 0 {
			t.Errorf("%q: status %d, closed %v, the provider got %d", body, resp.StatusCode, resp.Close, n)
		}
	}
}
