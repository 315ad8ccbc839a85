package provider

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
)

// WebSocketPath is where the stand-in takes WebSockets, at ElevenLabs as at every other provider.
const WebSocketPath = "/v1/convai/conversation"

const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455, section 1.3

var errFrame = errors.New("not a frame that an echo takes")

// WebSocketKey is the Sec-WebSocket-Key that the harness sends; the stand-in needs no other.
const WebSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// WebSocketAccept is the answer to it.
var WebSocketAccept = func() string {
	sum := sha1.Sum([]byte(WebSocketKey + websocketGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}()

// echo upgrades, and sends each message back.
func (x *exchange) echo() error {
	if _, err := io.WriteString(x.c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+WebSocketAccept+"\r\n\r\n"); err != nil {
		return err
	}
	var in, out []byte
	for {
		op, payload, err := ReadFrame(x.r, in[:0])
		if err != nil {
			return err
		}
		in = payload
		if op == opClose {
			_, _ = x.c.Write(AppendFrame(nil, opClose, payload, false))
			return io.EOF
		}
		out = AppendFrame(out[:0], op, payload, false)
		if _, err := x.c.Write(out); err != nil {
			return err
		}
	}
}

// Opcodes of RFC 6455.
const (
	OpBinary = 2
	opClose  = 8
)

// ReadFrame reads one whole message of one frame, unmasked into dst.
func ReadFrame(r *bufio.Reader, dst []byte) (op byte, payload []byte, err error) {
	var h [14]byte
	if _, err := io.ReadFull(r, h[:2]); err != nil {
		return 0, nil, err
	}
	if h[0]&0x80 == 0 {
		return 0, nil, errFrame
	}
	n := int(h[1] & 0x7f)
	switch n {
	case 126:
		if _, err := io.ReadFull(r, h[2:4]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		return 0, nil, errFrame
	}
	var mask [4]byte
	masked := h[1]&0x80 != 0
	if masked {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	dst = append(dst, make([]byte, n)...)
	payload = dst[len(dst)-n:]
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	if masked {
		for i := range payload {
			payload[i] ^= mask[i&3]
		}
	}
	return h[0] & 0x0f, payload, nil
}

// AppendFrame appends a message of one frame, masked as a client's must be.
func AppendFrame(dst []byte, op byte, payload []byte, masked bool) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	dst = append(dst, 0x80|op)
	if n := len(payload); n < 126 {
		dst = append(dst, bit|byte(n))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	}
	if !masked {
		return append(dst, payload...)
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	dst = append(dst, mask[:]...)
	dst = append(dst, payload...)
	for i, b := 0, dst[len(dst)-len(payload):]; i < len(b); i++ {
		b[i] ^= mask[i&3]
	}
	return dst
}

// IsAccepted says whether a head is the answer to an upgrade with WebSocketKey.
func IsAccepted(head []byte) bool {
	return bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) && bytes.Contains(head, []byte(WebSocketAccept))
}
