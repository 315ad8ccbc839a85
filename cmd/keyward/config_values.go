package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// wanted says what a flag's value must look like.
func wanted(flag *pflag.Flag) string {
	switch flag.Value.Type() {
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "duration":
		return "a duration, as 500ms, 30s, 5m or 1h30m"
	case "size":
		return "a size in bytes, as 32768, 32KiB, 25MiB or 1GiB"
	case "share":
		return "a share from 0 to 1, as 0.01"
	case "mode":
		return "an octal file mode, as 0660"
	}
	if name, _ := argument(flag); name != "" {
		return name
	}
	return "text"
}

// argument is what stands for a flag's value in the help ("" for a switch), and its help text.
func argument(flag *pflag.Flag) (name, help string) {
	name, help = pflag.UnquoteUsage(flag)
	if arg := flag.Annotations["arg"]; len(arg) > 0 {
		name = arg[0]
	}
	return name, help
}

// A share is a part of all, from 0 to 1.
type share float64

func (s *share) Set(text string) error {
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return errors.New("not a share")
	}
	*s = share(f)
	return nil
}

func (s *share) String() string { return strconv.FormatFloat(float64(*s), 'g', -1, 64) }
func (s *share) Type() string   { return "share" }

// A size is a number of bytes.
type size int64

func (s *size) Set(text string) error {
	text = strings.TrimSpace(text)
	digits := text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
	unit, ok := map[string]int64{
		"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30,
		"kb": 1e3, "mb": 1e6, "gb": 1e9,
	}[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil || n > math.MaxInt64/uint64(unit) {
		return errors.New("not a size")
	}
	*s = size(int64(n) * unit)
	return nil
}

func (s *size) Type() string { return "size" }

func (s *size) String() string {
	n := int64(*s)
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// A mode is a file's permission bits.
type mode fs.FileMode

func (m *mode) Set(text string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return errors.New("not a mode")
	}
	*m = mode(n)
	return nil
}

func (m *mode) Type() string   { return "mode" }
func (m *mode) String() string { return fmt.Sprintf("%04o", uint32(*m)) }

// A secretURL is a URL that may hold a password. It prints without it.
type secretURL string

// Reveal is the URL with its password.
func (s secretURL) Reveal() string { return string(s) }

func (s *secretURL) Set(text string) error {
	*s = secretURL(text)
	return nil
}

func (s *secretURL) Type() string { return "string" }

// String leaves out user information but for the user's name, and the query, which may hold a password too.
func (s secretURL) String() string {
	if s == "" || strings.HasPrefix(string(s), "sqlite:") {
		return string(s)
	}
	u, err := url.Parse(string(s))
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return "(hidden)"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}

// Format keeps every verb of fmt, %#v included, to String.
func (s secretURL) Format(w fmt.State, _ rune) { fmt.Fprint(w, s.String()) }

// MarshalText keeps JSON and YAML to String.
func (s secretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// hasPassword says whether the URL holds one.
func (s secretURL) hasPassword() bool {
	u, err := url.Parse(string(s))
	if err != nil {
		return true // who knows
	}
	if _, ok := u.User.Password(); ok {
		return true
	}
	q := u.Query()
	return q.Has("password") || q.Has("sslpassword")
}

// A secretText is a secret. It does not print.
type secretText string

// Reveal is the secret.
func (s secretText) Reveal() string { return string(s) }

func (s *secretText) Set(text string) error {
	*s = secretText(text)
	return nil
}

func (s *secretText) Type() string { return "string" }

func (s secretText) String() string {
	if s == "" {
		return ""
	}
	return "(hidden)"
}

// Format keeps every verb of fmt, %#v included, to String.
func (s secretText) Format(w fmt.State, _ rune) { fmt.Fprint(w, s.String()) }

// MarshalText keeps JSON and YAML to String.
func (s secretText) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
