package main

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/caller"
)

var updateReference = flag.Bool("update-reference", false, "write docs/reference/flags.md anew")

const referencePath = "../../docs/reference/flags.md"

func TestFlagReference(t *testing.T) {
	want := reference()
	if *updateReference {
		if err := os.WriteFile(referencePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/reference/flags.md differs from the flags: run go generate ./cmd/keyward")
	}
}

func TestFlagsAllHaveHelp(t *testing.T) {
	newServeFlags(&Config{}).VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
		if f.Value.Type() != "bool" && f.Annotations["arg"] == nil {
			t.Errorf("--%s has no name for its value", f.Name)
		}
	})
}

// reference is docs/reference/flags.md, all of it out of the tags of Config and of the sections' types.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Flags and file of keyward serve

<!-- Generated from cmd/keyward/config.go by go generate ./cmd/keyward. Change it there. -->

Every flag ` + "`--foo-bar` is also read from the variable `KEYWARD_FOO_BAR` and from `foo_bar:` in the YAML file named by `--config`" + `.
The flag wins over the variable, the variable over the file, the file over the default. A flag that may be repeated is a list in the
file, and separated by commas or spaces in its variable. What the program does not know (a flag, a key of the file, a bad value) stops the
start with one line and exit code 2; a ` + "`KEYWARD_*`" + ` variable that is no flag is a warning.

Durations are written ` + "`500ms`, `30s`, `5m`, `1h30m`; sizes `32768`, `32KiB`, `25MiB`, `1GiB`" + `. Names of users and groups are looked up in
` + "`/etc/passwd` and `/etc/group`" + `.

SIGHUP reads the file anew. What is marked *live* takes effect at once, and a change of anything else is named in the log and waits for a
restart. A bad file is refused as a whole and the old one stays.
`)
	f := newServeFlags(&Config{})
	section := ""
	f.VisitAll(func(flag *pflag.Flag) {
		if s := f.section(flag); s != section {
			section = s
			b.WriteString("\n## " + s + "\n\n| flag | default | meaning |\n|---|---|---|\n")
		}
		name, help := argument(flag)
		def := f.defaultText(flag)
		if def != "" && flag.Annotations["arg"] != nil {
			def = "`" + strings.ReplaceAll(def, "; ", "`; ") + strings.Repeat("`", 1-min(1, strings.Count(def, "; ")))
		}
		if flag.Annotations["reload"] != nil {
			help += " · *live*"
		}
		b.WriteString("| `" + strings.TrimSpace("--"+flag.Name+" "+name) + "` | " + def + " | " + help + " |\n")
	})
	b.WriteString("\n## In the file alone\n\n| key | meaning |\n|---|---|\n")
	keysOf(&b, "", reflect.TypeFor[fileSections]())
	b.WriteString("\nAn example with everything in it:\n\n```yaml\n" + exampleFile + "```\n")
	return b.String()
}

func keysOf(b *strings.Builder, under string, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		key, help := under+f.Tag.Get("yaml"), f.Tag.Get("help")
		if f.Tag.Get("reload") != "" {
			help += " · *live*"
		}
		switch {
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			b.WriteString("| `" + key + ":` | " + help + " |\n")
			keysOf(b, key+"[].", f.Type.Elem())
		case f.Type == reflect.TypeFor[caller.Unix]():
			b.WriteString("| `" + key + "` | " + help + " |\n")
			keysOf(b, key+".", f.Type)
		default:
			b.WriteString("| `" + key + "` | " + help + " |\n")
		}
	}
}

// exampleFile is checked by TestExampleFile.
const exampleFile = `run_dir: /run/keyward
data_dir: /var/lib/keyward
cache_size: 5000
upstream:
  api.twilio.com: https://twilio.staging.example
callers:
  - name: api
    unix: {user: root}
    orgs: ["*"]
    providers: ["*"]
  - name: sms-worker
    unix: {uid: 1501}
    orgs: [acme, globex]
    providers: [twilio]
    allow: ["POST /2010-04-01/Accounts/*/Messages.json", "GET /2010-04-01/**"]
    rate: 50/s burst 200
listeners:
  - {address: "127.0.0.1:7460", upstream: www.googleapis.com}
providers:
  - {name: acme_api, hosts: [api.acme.example], header: X-Acme-Key, probe: /v1/me}
webhooks:
  - {provider: twilio, org: acme, target: "unix:/run/app.sock:/sms", mode: durable}
`
