// Package ca is the certificate authority of interception: a local one, whose root the apps of one machine are told to trust, and
// which can vouch for the providers' hosts and for nothing else (RFC 5280, section 4.2.1.10, name constraints). What a stolen key is
// good for ends there.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
)

const (
	rootLife = 5 * 365 * 24 * time.Hour
	skew     = time.Hour // that another machine's clock may be behind, as far as certificates go

	// Overlap is how long apps that trust only the root before a rotation are served.
	Overlap = 30 * 24 * time.Hour
)

// An Authority is a root, its key, and for a while after a rotation what has the root before vouch for this one. It is never changed once
// it is made.
type Authority struct {
	root  *x509.Certificate
	key   *ecdsa.PrivateKey
	cross *x509.Certificate // this root's key, signed by the root before; nil: there was none, or it was not to be trusted further
	heir  *user             // whose the file is to be that holds the key; nil: the folder that it is put into says it
}

// Generate makes an authority for the hosts.
func Generate(hosts []string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the CA's key: %w", err)
	}
	tpl := template(hosts, now)
	tpl.NotAfter = now.Add(rootLife)
	tpl.MaxPathLen = 1 // for the root of the next rotation
	root, err := sign(tpl, tpl, &key.PublicKey, key)
	return &Authority{root: root, key: key}, err
}

// Rotate makes the authority that takes a's place. Its key is a new one. Unless a is not to be trusted further, a vouches for it, so that
// apps which trust only a's root are served for the time of Overlap; a's own key is not needed for that and can go.
func (a *Authority) Rotate(hosts []string, now time.Time, trusted bool) (*Authority, error) {
	next, err := Generate(hosts, now)
	if err != nil || !trusted || now.After(a.root.NotAfter) {
		return next, err
	}
	tpl := template(hosts, now)
	tpl.Subject, tpl.SubjectKeyId = next.root.Subject, next.root.SubjectKeyId
	tpl.NotAfter = earlier(now.Add(Overlap), a.root.NotAfter)
	tpl.MaxPathLenZero = true
	next.cross, err = sign(tpl, a.root, &next.key.PublicKey, a.key)
	next.heir = a.heir // what a vouches for is for nobody else
	return next, err
}

// template is what a root and its cross-signed twin have in common.
func template(hosts []string, now time.Time) *x509.Certificate {
	everything := func(bits int) *net.IPNet { return &net.IPNet{IP: make(net.IP, bits/8), Mask: make(net.IPMask, bits/8)} }
	hosts = slices.Clone(hosts)
	slices.Sort(hosts)
	return &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{Organization: []string{"Keyward"}, CommonName: "Keyward local CA " + now.UTC().Format("2006-01-02") + " " + strings.ToLower(rand.Text()[:6])},
		NotBefore:                   now.Add(-skew),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         slices.Compact(hosts),
		ExcludedIPRanges:            []*net.IPNet{everything(32), everything(128)}, // what is permitted of one kind of name says nothing of another
	}
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func sign(tpl, parent *x509.Certificate, of any, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, of, by)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Root is what apps are told to trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// PEM is the root in the form that apps read.
func (a *Authority) PEM() []byte { return certPEM(a.root) }

// Covers says whether the authority can vouch for the host. One that was made by a version with fewer providers cannot for theirs.
func (a *Authority) Covers(host string) bool {
	return slices.ContainsFunc(a.root.PermittedDNSDomains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
}

// Uncovered are those of the hosts that the authority cannot vouch for.
func (a *Authority) Uncovered(hosts []string) []string {
	return slices.DeleteFunc(slices.Clone(hosts), a.Covers)
}

const keyType = "PRIVATE KEY"

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// encode is the authority as it is kept: key, root, and the root signed by the one before.
func (a *Authority) encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	b := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), a.PEM())
	clear(der)
	if a.cross != nil {
		b = append(b, certPEM(a.cross)...)
	}
	return b, nil
}

// decode reads what encode wrote. Its errors quote nothing of it.
func decode(b []byte) (*Authority, error) {
	a := &Authority{}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case keyType:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			clear(block.Bytes)
			key, ok := k.(*ecdsa.PrivateKey)
			if err != nil || !ok || key.Curve != elliptic.P256() {
				return nil, errors.New("its private key is not one on P-256")
			}
			a.key = key
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			switch {
			case err != nil:
				return nil, errors.New("a certificate in it cannot be read")
			case a.root == nil:
				a.root = c
			default:
				a.cross = c
			}
		}
	}
	switch {
	case a.key == nil || a.root == nil:
		return nil, errors.New("it does not hold a private key and a certificate")
	case !a.key.PublicKey.Equal(a.root.PublicKey), a.cross != nil && !a.key.PublicKey.Equal(a.cross.PublicKey):
		return nil, errors.New("its private key and its certificate do not belong together")
	case !a.root.IsCA || len(a.root.PermittedDNSDomains) == 0 || !a.root.PermittedDNSDomainsCritical:
		return nil, errors.New("its certificate is not that of a CA for the providers' hosts alone")
	}
	return a, nil
}
