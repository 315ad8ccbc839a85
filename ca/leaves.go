package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	leafLife = 24 * time.Hour // from NotBefore, which is skew in the past
	renewAt  = 4 * time.Hour  // before its end a leaf is made anew
)

// Errors of Leaves.For.
var (
	// ErrUncovered: the authority is not for that host.
	ErrUncovered = errors.New("the local CA was made before this host was known and cannot vouch for it; keyward ca rotate makes one that can")
	// ErrExpired: the root itself has ended, so that no leaf could be good.
	ErrExpired = errors.New("the local CA has expired; keyward ca rotate makes another")
)

// Leaves are the certificates that intercepted hosts are answered with: one for each host, made when it is first needed and again before
// it ends. Hosts are a closed list, so they are as many at most. Those who want the same one at once wait for one making.
type Leaves struct {
	authority atomic.Pointer[Authority]
	now       func() time.Time

	mu   sync.Mutex // held while one is made
	made sync.Map   // :: host → *leaf
}

type leaf struct {
	of   *Authority
	cert *tls.Certificate
}

// NewLeaves makes leaves of a. A nil clock is time.Now.
func NewLeaves(a *Authority, now func() time.Time) *Leaves {
	if now == nil {
		now = time.Now
	}
	l := &Leaves{now: now}
	l.authority.Store(a)
	return l
}

// Authority is the one in force.
func (l *Leaves) Authority() *Authority { return l.authority.Load() }

// SetAuthority has every further leaf come from a. Connections that are open stay.
func (l *Leaves) SetAuthority(a *Authority) { l.authority.Store(a) }

// For is the leaf of a host.
func (l *Leaves) For(host string) (*tls.Certificate, error) {
	if c := l.kept(host); c != nil {
		return c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.kept(host); c != nil {
		return c, nil
	}
	a := l.authority.Load()
	cert, err := a.leaf(host, l.now())
	if err != nil {
		return nil, err
	}
	l.made.Store(host, &leaf{a, cert})
	return cert, nil
}

// kept is a leaf that is there and good for a while yet; nil: none is.
func (l *Leaves) kept(host string) *tls.Certificate {
	v, ok := l.made.Load(host)
	if !ok {
		return nil
	}
	had := v.(*leaf)
	now, end := l.now(), had.cert.Leaf.NotAfter
	last := end.Equal(had.of.root.NotAfter) // the next one would end then too
	if had.of != l.authority.Load() || !now.Before(end) || !last && !now.Before(end.Add(-renewAt)) {
		return nil
	}
	return had.cert
}

// leaf makes one. The root before vouches for this one in the same message, for apps that know only that.
func (a *Authority) leaf(host string, now time.Time) (*tls.Certificate, error) {
	switch {
	case !a.Covers(host):
		return nil, ErrUncovered
	case !now.Before(a.root.NotAfter):
		return nil, ErrExpired
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a leaf's key: %w", err)
	}
	c, err := sign(&x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"Keyward"}, OrganizationalUnit: []string{"intercepted on this machine"}},
		NotBefore:    now.Add(-skew),
		NotAfter:     earlier(now.Add(leafLife-skew), a.root.NotAfter),
		DNSNames:     []string{host},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}, a.root, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	if a.cross != nil && now.Before(a.cross.NotAfter) {
		cert.Certificate = append(cert.Certificate, a.cross.Raw)
	}
	return cert, nil
}
