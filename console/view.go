package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

//go:embed pages
var pageFiles embed.FS

// named are the names under which assets are served, "style.3f2a….css", to those that they have here, and the paths of those. templates
// are the pages, each with the frame around it. Both are made once, when somebody looks: the sidecar's start does not wait for them.
var (
	named     = sync.OnceValues(nameAssets)
	templates = sync.OnceValue(parse)
)

func nameAssets() (served, paths map[string]string) {
	served, paths = map[string]string{}, map[string]string{}
	files, err := fs.ReadDir(assets, "assets")
	if err != nil {
		panic(err) // they are embedded
	}
	for _, f := range files {
		b, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			panic(err) // they are embedded
		}
		sum := sha256.Sum256(b)
		ext := filepath.Ext(f.Name())
		name := strings.TrimSuffix(f.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		served[name], paths[f.Name()] = f.Name(), "/assets/"+name
	}
	return served, paths
}

func parse() map[string]*template.Template {
	all := map[string]*template.Template{}
	shared := []string{"pages/frame.html", "pages/parts.html"}
	files, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		panic(err) // only for a malformed pattern
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".html")
		all[name] = template.Must(template.New(name).Funcs(functions).ParseFS(pageFiles, append(shared, f)...))
	}
	return all
}

// functions are what the templates may call.
var functions = template.FuncMap{
	"asset": func(name string) string {
		_, paths := named()
		return paths[name]
	},
	"path":   path,
	"when":   when,
	"ago":    func(t *time.Time) string { return ago(t, time.Now()) },
	"count":  count,
	"pretty": pretty,
	"join":   strings.Join,
	"parts":  func(v ...any) []any { return v },
	"word":   func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"bad":    func(r *refusal, field string) string { return r.field(field) },
}

// when is a moment as a machine writes it.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// ago is a moment as a person says it.
func ago(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "never"
	}
	d := now.Sub(*t)
	if d < 0 {
		return "in " + span(-d)
	}
	if d < 10*time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// count is "1 org" or "2 orgs".
func count(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// pretty is JSON as people read it: with white space, and each name and number as it was written, since it is sent back from a form. The API
// writes what could be markup as escapes.
func pretty(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return markup.Replace(b.String())
}

// markup passes over a backslash that is escaped itself.
var markup = strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// done is what a page says after something was done, by the word in its query. Nothing of a query is ever shown itself.
var done = map[string]string{
	"bye":         "You are logged out.",
	"revoked":     "Your admin token was revoked, or the session has ended. Log in again.",
	"saved":       "Saved. Every sidecar uses it from now on.",
	"verified":    "The provider was asked; its answer is shown below.",
	"unproven":    "The provider could not be asked now, so the last answer stands. Try again in a minute.",
	"enabled":     "Enabled.",
	"disabled":    "Disabled. Requests for it are refused from now on.",
	"deleted":     "Deleted.",
	"promoted":    "The former credential is retired.",
	"unstaged":    "The former credential is in use again.",
	"mapped":      "The assistant belongs to this org now.",
	"unmapped":    "The assistant belongs to no org any more.",
	"agent":       "The agent is saved. Ensure its assistant to bring Vapi up to date.",
	"created":     "The assistant was made at Vapi.",
	"updated":     "The assistant was brought up to date at Vapi.",
	"unchanged":   "The assistant is as configured.",
	"sample":      "A signed sample was sent to the webhook listener and accepted.",
	"sample-bad":  "A signed sample was sent to the webhook listener, and refused there: the sidecar's log says why.",
	"redelivered": "The delivery is due now.",
	"token-gone":  "The token is revoked: whoever still has it is refused.",
}
