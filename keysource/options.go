package keysource

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// options are what stands behind the question mark of a source. Each is taken once by what knows it; what is left is unknown.
type options struct{ values url.Values }

func readOptions(query string) (*options, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what stands behind the question mark cannot be read: it must be like keyset=/etc/keyward/keys.wrapped.json")
	}
	for name, all := range values {
		if len(all) > 1 {
			return nil, fmt.Errorf("%s: is given twice", printable(name))
		}
	}
	return &options{values}, nil
}

func (o *options) take(name string) string {
	v := o.values.Get(name)
	o.values.Del(name)
	return v
}

// rest names what nobody has taken.
func (o *options) rest() error {
	if len(o.values) == 0 {
		return nil
	}
	return fmt.Errorf("%s: unknown option", printable(strings.Join(slices.Sorted(maps.Keys(o.values)), ", ")))
}

// endpoint takes the address of a service that is not at its usual place. Plain HTTP would show keys to the network, so it is for this
// machine only.
func (o *options) endpoint() (string, error) {
	text := o.take("endpoint")
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "", errors.New("endpoint: must be a URL that ends after its host and port, as https://vpce-….amazonaws.com")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return "", errors.New("endpoint: must begin with https://; http:// is for loopback addresses only")
	}
	return u.Scheme + "://" + u.Host, nil
}

func isLoopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }
