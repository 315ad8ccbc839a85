package canary

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
)

func TestLeaksAreFoundInEveryForm(t *testing.T) {
	var s Set
	const secret = `0123456789"abc+def/xyz`
	s.Learn(`{"credentials":{"account_sid":"AC0123456789abcdef0123456789abcdef","webhook_secret":["` + strings.ReplaceAll(secret, `"`, `\"`) + `"]}}`)
	for what, text := range map[string]string{
		"raw": "x" + secret + "y", "escaped": `{"a":"` + strings.ReplaceAll(secret, `"`, `\"`) + `"}`, "percent-encoded": "?a=" + url.QueryEscape(secret),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if s.Leak(text) == "" {
			t.Errorf("%s: not found", what)
		}
	}
	if got := s.Leak("AC0123456789abcdef0123456789abcdef …/xyz"); got != "" {
		t.Errorf("%s is found where it is not", got)
	}
	if token := "kwt" + strings.Repeat("a1B", 14) + "x"; s.LeakOrToken("by "+token+".") == "" || s.Leak(token) != "" {
		t.Error("tokens are told from secrets")
	}
}
