package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"sync"
	"time"
)

// How long a person stays logged in, and how many at once.
const (
	sessionIdle = time.Hour
	sessionMost = 12 * time.Hour
	maxSessions = 1000
)

// cookieName: with this prefix a browser takes the cookie only from this very host, with Secure and for all paths, so that nothing beside
// us can plant one. Browsers take Secure cookies over plain http from loopback, which they trust as they trust https.
const cookieName = "__Host-keyward"

// A session is a person who has logged in. The admin token lies here sealed with a key that only the browser's cookie holds: what is in
// memory between two requests is of no use to who reads it.
type session struct {
	token []byte // sealed
	csrf  string // what the session's forms bring along
	Name  string
	org   string
	since time.Time
	seen  time.Time
}

// Operator says whether the session's token is bound to no org.
func (s *session) Operator() bool { return s.org == "" }

// sessions are who is logged in. They end with the process.
type sessions struct {
	mu  sync.Mutex
	all map[[32]byte]*session // :: SHA-256 of the cookie → session
	now func() time.Time
}

func newSessions() *sessions { return &sessions{all: map[[32]byte]*session{}, now: time.Now} }

// add makes a session for the token and returns the cookie's value.
func (s *sessions) add(token string, who *session) (cookie string) {
	cookie = base64.RawURLEncoding.EncodeToString(random(32))
	who.csrf = base64.RawURLEncoding.EncodeToString(random(32))
	who.token = sealer(cookie).Seal(nil, make([]byte, 12), []byte(token), nil) // a key of its own for each: the nonce may be fixed
	s.mu.Lock()
	defer s.mu.Unlock()
	who.since, who.seen = s.now(), s.now()
	s.makeRoom()
	s.all[sha256.Sum256([]byte(cookie))] = who
	return cookie
}

// find is the session of a cookie and its admin token; nil: there is none, or it has ended. Live streams do not keep one awake.
func (s *sessions) find(cookie string, awake bool) (*session, string) {
	key := sha256.Sum256([]byte(cookie))
	s.mu.Lock()
	one := s.all[key]
	if one != nil && s.ended(one) {
		delete(s.all, key)
		one = nil
	}
	if one != nil && awake {
		one.seen = s.now()
	}
	s.mu.Unlock()
	if one == nil {
		return nil, ""
	}
	token, err := sealer(cookie).Open(nil, make([]byte, 12), one.token, nil)
	if err != nil {
		return nil, ""
	}
	return one, string(token)
}

func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(cookie)))
}

func (s *sessions) ended(one *session) bool {
	now := s.now()
	return now.Sub(one.seen) > sessionIdle || now.Sub(one.since) > sessionMost
}

// makeRoom forgets who has left, and when nobody has, who was seen longest ago.
func (s *sessions) makeRoom() {
	if len(s.all) < maxSessions {
		return
	}
	var oldest [32]byte
	var at time.Time
	for key, one := range s.all {
		if s.ended(one) {
			delete(s.all, key)
			continue
		}
		if at.IsZero() || one.seen.Before(at) {
			oldest, at = key, one.seen
		}
	}
	if len(s.all) >= maxSessions {
		delete(s.all, oldest)
	}
}

func sealer(cookie string) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, []byte(cookie), nil, "keyward console session", 32)
	if err != nil {
		panic(err) // only for a key that is too long
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for a block of another size
	}
	return aead
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// cookieOf is the value of the session's cookie; with two of the name, which a browser never sends, it is none.
func cookieOf(r *http.Request) string {
	if all := r.CookiesNamed(cookieName); len(all) == 1 {
		return all[0].Value
	}
	return ""
}

func setCookie(w http.ResponseWriter, value string) {
	c := &http.Cookie{Name: cookieName, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// sameText compares in constant time.
func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
