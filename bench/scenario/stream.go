package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
	"time"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/provider"
)

const elevenLabs = "api.elevenlabs.io"

// speech starts a sidecar with an ElevenLabs key, and gives both contenders what has to stand in each of their requests.
func (e *Env) speech(ctx context.Context) (straight, through contender, header func(contender) string, err error) {
	s, err := e.sidecar(ctx)
	if err != nil {
		return straight, through, nil, err
	}
	if err := s.SetCredential(ctx, org, "elevenlabs", map[string]any{"api_key": provider.KeyOf(org)}); err != nil {
		return straight, through, nil, err
	}
	if straight, err = e.directly(direct, elevenLabs, nil); err != nil {
		return straight, through, nil, err
	}
	through = s.contender(keyward, nil)
	return straight, through, func(c contender) string {
		h := "Host: " + elevenLabs + "\r\nX-Bench-Org: " + org + "\r\nUser-Agent: bench/1.0\r\n"
		if c.name == direct {
			return h + "xi-api-key: " + provider.KeyOf(org) + "\r\n"
		}
		return h + "Keyward-Org: " + org + "\r\n"
	}, nil
}

// stream is chunked audio: 20 chunks of 4 KiB, 10 ms apart. The latency is the time to the first byte of audio; chunk_way is how long each chunk took
// from the provider's write to the caller's read of its last byte, chunk_gap the time between two, and chunks_held counts those whose end came
// only when the next had been sent.
func stream(ctx context.Context, e *Env) error {
	straight, through, header, err := e.speech(ctx)
	if err != nil {
		return err
	}
	of := func(c contender) talk {
		request := []byte("POST /v1/text-to-speech/voice/stream HTTP/1.1\r\n" + header(c) + "Content-Type: application/json\r\nContent-Length: 16\r\n\r\n" + `{"text":"hello"}`)
		return func(_ context.Context, l *line, until time.Time, own *tally) error {
			if err := listen(l, request, newTally()); err != nil { // connections are open now
				return err
			}
			for time.Now().Before(until) {
				if err := listen(l, request, own); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return e.talksInTurn(ctx, "stream", 16, max(2*e.Time, 500*time.Millisecond), of, straight, through)
}

// listen asks for one stream and follows it. Where TLS records and chunks of HTTP end is nobody's promise: what counts is when the bytes come.
func listen(l *line, request []byte, own *tally) error {
	begun := time.Now()
	if _, err := l.Write(request); err != nil {
		return err
	}
	h, err := l.head(200)
	if err != nil {
		return err
	}
	if h.Get("Transfer-Encoding") != "chunked" {
		return errors.New("the stream is not chunked")
	}
	body := httputil.NewChunkedReader(l.r)
	chunk := make([]byte, provider.ChunkBytes)
	var last time.Time
	for n := range provider.Chunks {
		if _, err := io.ReadFull(body, chunk[:1]); err != nil {
			return fmt.Errorf("chunk %d of %d: %w", n, provider.Chunks, err)
		}
		if n == 0 {
			load.Record(own.latency, time.Since(begun))
		}
		if _, err := io.ReadFull(body, chunk[1:]); err != nil {
			return fmt.Errorf("chunk %d of %d: %w", n, provider.Chunks, err)
		}
		now := time.Now()
		at, err := strconv.ParseInt(string(chunk[:16]), 16, 64)
		if err != nil {
			return fmt.Errorf("reading a chunk's time: %w", err)
		}
		sent := time.Unix(0, at)
		own.record("chunk_way", now.Sub(sent))
		own.counts["chunks"]++
		if n > 0 {
			own.record("chunk_gap", now.Sub(last))
			if !last.Before(sent) {
				own.counts["chunks_held"]++
			}
		}
		last = now
	}
	if n, err := io.Copy(io.Discard, body); err != nil || n > 0 {
		return errors.Join(fmt.Errorf("%d bytes after the stream's end", n), err)
	}
	_, err = l.r.Discard(len("\r\n")) // no trailers
	return err
}

// websocket is round trips of 64-byte messages on an open socket.
func websocket(ctx context.Context, e *Env) error {
	straight, through, header, err := e.speech(ctx)
	if err != nil {
		return err
	}
	of := func(c contender) talk {
		request := "GET " + provider.WebSocketPath + "?agent_id=a HTTP/1.1\r\n" + header(c) +
			"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + provider.WebSocketKey + "\r\n\r\n"
		return func(_ context.Context, l *line, until time.Time, own *tally) error {
			if _, err := io.WriteString(l, request); err != nil {
				return err
			}
			h, err := l.head(101)
			if err != nil {
				return err
			}
			if h.Get("Sec-WebSocket-Accept") != provider.WebSocketAccept {
				return errors.New("the upgrade was not the provider's")
			}
			message := bytes.Repeat([]byte("m"), 64)
			var out, in []byte
			for now := time.Now(); now.Before(until); {
				out = provider.AppendFrame(out[:0], provider.OpBinary, message, true)
				if _, err := l.Write(out); err != nil {
					return err
				}
				var err error
				if _, in, err = provider.ReadFrame(l.r, in[:0]); err != nil {
					return err
				}
				if !bytes.Equal(in, message) {
					return errors.New("the echo is not what was sent")
				}
				then := now
				now = time.Now()
				load.Record(own.latency, now.Sub(then))
			}
			return nil
		}
	}
	for _, conns := range []int{1, 16} {
		if err := e.talksInTurn(ctx, "websocket", conns, e.Time, of, straight, through); err != nil {
			return err
		}
	}
	return nil
}

const uploadBytes = 100 << 20

// upload is a multipart body of 100 MB. Beside the time it reports by how much the sidecar's memory grew meanwhile.
func upload(ctx context.Context, e *Env) error {
	straight, through, header, err := e.speech(ctx)
	if err != nil {
		return err
	}
	const boundary = "bench0123456789"
	before := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"talk.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n"
	after := "\r\n--" + boundary + "--\r\n"
	part := bytes.Repeat([]byte{0x55}, 256<<10)
	send := func(l *line, head string, bytes int) error {
		if _, err := io.WriteString(l, head+"Content-Type: multipart/form-data; boundary="+boundary+"\r\nContent-Length: "+
			strconv.Itoa(len(before)+bytes+len(after))+"\r\n\r\n"+before); err != nil {
			return err
		}
		for rest := bytes; rest > 0; {
			n := min(rest, len(part))
			if _, err := l.Write(part[:n]); err != nil {
				return err
			}
			rest -= n
		}
		if _, err := io.WriteString(l, after); err != nil {
			return err
		}
		_, err := l.head(200)
		if err == nil {
			_, err = l.r.Discard(len("{}"))
		}
		return err
	}
	of := func(c contender) talk {
		head := "POST /v1/speech-to-text HTTP/1.1\r\n" + header(c)
		return func(_ context.Context, l *line, _ time.Time, own *tally) error {
			if err := send(l, head, 1<<20); err != nil { // buffers and pools are there
				return err
			}
			forgetPeak(c.pids)
			memory, err := MemoryOf(c.pids, "VmRSS")
			if err != nil {
				return err
			}
			begun := time.Now()
			if err := send(l, head, uploadBytes); err != nil {
				return err
			}
			took := time.Since(begun)
			load.Record(own.latency, took)
			own.counts["mib_per_s"] = float64(uploadBytes>>20) / took.Seconds()
			peak, err := MemoryOf(c.pids, "VmHWM")
			if len(c.pids) > 0 {
				own.counts["rss_growth_bytes"] = float64(peak - memory)
			}
			return err
		}
	}
	return e.talksInTurn(ctx, "upload", 1, time.Second, of, straight, through)
}
