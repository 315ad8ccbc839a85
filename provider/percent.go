package provider

// Paths and forms are compared as the provider reads them, percent-decoded, but never decoded as a whole: what is forwarded stays as it
// was sent. A '%' that no two hexadecimal digits follow stands for itself.

// decodeAt is the byte that b has at i, and how many bytes stand for it.
func decodeAt(b []byte, i int) (c byte, n int) {
	if b[i] == '%' && i+2 < len(b) {
		hi, lo := unhex(b[i+1]), unhex(b[i+2])
		if hi >= 0 && lo >= 0 {
			return byte(hi<<4 | lo), 3
		}
	}
	return b[i], 1
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// cutDecoded takes prefix off b, percent-encoded or not.
func cutDecoded(b []byte, prefix string) (rest []byte, ok bool) {
	for i := range len(prefix) {
		if len(b) == 0 {
			return b, false
		}
		c, n := decodeAt(b, 0)
		if c != prefix[i] {
			return b, false
		}
		b = b[n:]
	}
	return b, true
}

func decodedIs(b []byte, s string) bool {
	rest, ok := cutDecoded(b, s)
	return ok && len(rest) == 0
}

// pathIs says whether a path is want, a slash at its end or not.
func pathIs(path []byte, want string) bool {
	rest, ok := cutDecoded(path, want)
	return ok && (len(rest) == 0 || decodedIs(rest, "/"))
}

// appendEscaped appends b as a form's value.
func appendEscaped(dst, b []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// ParamIs says whether a query parameter, "name=value" or a name alone, has the lower-case name: percent-encoded or not, in any case.
func ParamIs(param []byte, name string) bool {
	for i := range len(name) {
		if len(param) == 0 {
			return false
		}
		c, n := decodeAt(param, 0)
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
		param = param[n:]
	}
	return len(param) == 0 || param[0] == '='
}
