package provider

import "bytes"

// formValue is the value of the first pair of that name in a form body, still encoded.
func formValue(body []byte, name string) (value []byte, ok bool) {
	for len(body) > 0 {
		pair := body
		if i := bytes.IndexByte(body, '&'); i >= 0 {
			pair, body = body[:i], body[i+1:]
		} else {
			body = nil
		}
		key, value, _ := bytes.Cut(pair, equals)
		if decodedIs(key, name) {
			return value, true
		}
	}
	return nil, false
}

var equals = []byte("=")
