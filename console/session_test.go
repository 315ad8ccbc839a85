package console

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestSessionsEnd(t *testing.T) {
	now := time.Now()
	s := newSessions()
	s.now = func() time.Time { return now }
	idle := s.add("kwa-idle", &session{})
	used := s.add("kwa-used", &session{})
	for range 11 {
		now = now.Add(time.Hour)
		if one, token := s.find(used, true); one == nil || token != "kwa-used" {
			t.Fatal("a session that is used ended")
		}
	}
	if one, _ := s.find(idle, true); one != nil {
		t.Error("a session that nobody used goes on")
	}
	now = now.Add(time.Hour)
	watched := s.add("kwa-watched", &session{})
	now = now.Add(time.Minute)
	if one, _ := s.find(used, true); one != nil {
		t.Error("a session goes on for more than twelve hours")
	}
	for range 13 {
		now = now.Add(5 * time.Minute)
		s.find(watched, false)
	}
	if one, _ := s.find(watched, true); one != nil {
		t.Error("a live page keeps a session awake")
	}
	s.end(s.add("kwa-x", &session{}))
	if len(s.all) != 0 {
		t.Errorf("%d sessions are kept", len(s.all))
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	first := s.add("kwa-0", &session{})
	for range maxSessions + 10 {
		s.add("kwa-1", &session{})
	}
	if one, _ := s.find(first, true); one != nil || len(s.all) > maxSessions {
		t.Errorf("%d sessions, the oldest among them: %v", len(s.all), one != nil)
	}
}

// Between two requests the token cannot be read out of memory: its key is the cookie, of which only a hash is here.
func TestTokenLiesSealed(t *testing.T) {
	s := newSessions()
	const token = "kwa-0123456789"
	cookie := s.add(token, &session{})
	for key, one := range s.all {
		if bytes.Contains(one.token, []byte(token)) || bytes.Contains(key[:], []byte(cookie)) {
			t.Error("the token or the cookie lies open")
		}
	}
	if one, _ := s.find(cookie[:len(cookie)-1]+"!", true); one != nil {
		t.Error("another cookie finds the session")
	}
}

func FuzzFormsAreReadAsBrowsersWriteThem(f *testing.F) {
	f.Add("a=b&c=%41+x&a=&=&%zz")
	f.Fuzz(func(t *testing.T, body string) {
		name, ok := unescape([]byte(body))
		if ok && len(name) > len(body) {
			t.Error("it grew")
		}
		o := newObject(64)
		if ok {
			o.text("k", bytes.ToValidUTF8(name, nil))
		}
		if out := o.end(); !json.Valid(out) {
			t.Errorf("%q is no JSON", out)
		}
	})
}
