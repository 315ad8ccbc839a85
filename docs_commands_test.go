package keyward_test

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A notRun is commands of one document that TestDocumentsRunAsTyped does not run, and why.
type notRun struct {
	doc, why string
	commands []string
}

const (
	ourOwn     = "tasks of the repository: they are what runs this test, or take minutes"
	needsNPM   = "needs npm's packages, which examples/ installs: its tests run the same programs over both transports"
	needsRoot  = "needs root and systemd as the machine's own: deploy/test verifies the units and runs the program under their restrictions"
	needsKube  = "needs a cluster: deploy/test builds the manifests and validates them"
	needsHub   = "needs Docker: deploy/test executes the Dockerfile's steps and loads the Compose file"
	needsPG    = "needs PostgreSQL under that name: cmd/keyward's tests do the same with one of their own"
	needsOther = "needs another shell or a pager: cmd/keyward's tests load each script into its shell and read the manual page"
)

// elsewhere is every command of the documents that is not run, as commandsOf says it.
var elsewhere = []notRun{
	{"README.md", ourOwn, []string{"make run", "make test", "make build"}},
	{"CONTRIBUTING.md", ourOwn, []string{"make help", "make test-short", "make test", "make lint fmt"}},
	{"bench/README.md", ourOwn, []string{
		"make bench-quick", "make bench", "make bench-quick ARGS='--scenario hit,webhook --peer nginx'", "make bench-quick ARGS='--scenario hit --profile'",
		"make bench-compare BASE=before.json", "make microbench", "make soak", "make soak SOAK=10m ARGS='--rate 200'",
	}},
	{"examples/README.md", ourOwn, []string{"go test ./..."}},
	{"docs/performance.md", ourOwn, []string{"make bench-quick", "make bench"}},
	{"docs/performance.md", "takes ten seconds and a program with symbols: cmd/keyward/profile_test.go", []string{
		"keyward serve --debug …", "curl --unix-socket R/admin.sock -o cpu.prof 'http://keyward/debug/pprof/profile?seconds=10'",
		"go tool pprof -top bin/keyward cpu.prof",
	}},
	{"docs/getting-started.md", ourOwn, []string{"make build"}},
	{"docs/getting-started.md", needsPG, []string{
		"KEYWARD_STORE=postgres://keyward:PASSWORD@db.internal/keyward bin/keyward serve --key file:keys.json",
	}},
	{"docs/outages.md", needsPG, []string{
		"keyward serve --store-file /etc/keyward/store --last-known-good /var/lib/keyward/last-known-good --max-stale 4h",
	}},
	{"docs/reference/store.md", needsPG, []string{
		"keyward serve --store postgres://keyward_app:…@db/keyward --migrate-url postgres://keyward_owner:…@db/keyward",
	}},
	{"docs/providers.md", "needs an API of one's own at a public address: the tests of cmd/keyward and provider have one", []string{
		`echo '{"api_key":"…"}' | keyward credentials set --org acme --provider acme_api --verify`,
		"curl --unix-socket /run/keyward/caller.sock -H 'Keyward-Org: acme' http://api.acme.example/v1/things",
	}},
	{"docs/import.md", needsPG, []string{
		"export KEYWARD_FROM=postgres://app:…@db/app", "export ENCRYPTION_KEY=…", "keyward import", "keyward import --apply",
		"keyward import --watch --interval 5s",
	}},
	{"docs/reference/keys.md", "needs a key management service: keysource's tests have one that answers as AWS's, Google's and Vault's do", []string{
		"keyward keys generate --key file:keys.json",
		"keyward keys rewrap --key file:keys.json --to 'awskms://alias/keyward?region=eu-central-1&keyset=/etc/keyward/keys.wrapped.json'",
		"keyward serve --key 'awskms://alias/keyward?region=eu-central-1&keyset=/etc/keyward/keys.wrapped.json'",
	}},
	{"docs/cli.md", needsOther, []string{
		"source <(keyward completion bash)", `keyward completion zsh > "${fpath[1]}/_keyward"`,
		"keyward completion fish > ~/.config/fish/completions/keyward.fish", "keyward help --man > keyward.1 && man ./keyward.1",
	}},
	{"docs/sdks/README.md", needsNPM, []string{
		"bin/keyward serve --dev", "cd examples/node && npm ci", "KEYWARD_SOCKET=/path/to/caller.sock KEYWARD_ORG=demo node twilio.mjs",
		"KEYWARD_TOKEN=kwt… KEYWARD_ORG=demo node twilio.mjs", "cd .. && KEYWARD_SOCKET=/path/to/caller.sock KEYWARD_ORG=demo go run ./go/twilio",
	}},
	{"docs/unchanged-apps.md", "runs already, with flags in the place of the file, or needs hosts of one's own: examples/ runs apps through it", []string{
		"keyward serve --intercept --config /etc/keyward.yaml",
		"keyward serve --intercept --intercept-passthrough files.example --intercept-passthrough '*.cdn.example:8443'",
	}},
	{"docs/voice-agent.md", needsNPM, []string{
		`bin/keyward serve --webhook-target "unix:$PWD/.keyward/app.sock:/hooks"`, "cd examples/node && npm ci",
		"export KEYWARD_SOCKET=../../.keyward/caller.sock APP_SOCKET=../../.keyward/app.sock", "node voice-agent.mjs",
		"bin/keyward credentials set --org acme --provider twilio", "bin/keyward credentials set --org acme --provider vapi",
		"bin/keyward assistants set ASSISTANT_ID --org acme", "bin/keyward webhooks test --org acme --provider vapi --type tool-calls",
		"bin/keyward webhooks test --org acme --provider vapi --type end-of-call-report",
	}},
	{"docs/production-systemd.md", needsRoot, []string{
		"install -m 0755 bin/keyward /usr/bin/keyward",
		"install -m 0644 deploy/systemd/keyward.service deploy/systemd/keyward*.socket /etc/systemd/system/",
		"install -m 0644 deploy/systemd/sysusers.conf /etc/sysusers.d/keyward.conf",
		"install -m 0644 deploy/systemd/tmpfiles.conf /etc/tmpfiles.d/keyward.conf",
		"systemd-sysusers keyward.conf", "systemd-tmpfiles --create keyward.conf",
		"install -m 0640 -g keyward deploy/systemd/keyward.yaml /etc/keyward/keyward.yaml",
		"keyward keys generate --key file:/etc/keyward/keys.json", "systemctl daemon-reload", "systemctl enable --now keyward",
		"usermod -aG keyward-callers app", "systemctl reload keyward",
		"keyward credentials set --run-dir /run/keyward --org acme --provider twilio <acme-twilio.json",
		"keyward keys add --key file:/etc/keyward/keys.json --store sqlite:/var/lib/keyward/keyward.db", "systemctl restart keyward",
	}},
	{"docs/production-kubernetes.md", needsKube, []string{
		"keyward keys generate --key file:keys.json", "kubectl create secret generic keyward-keys --from-file=keys.json",
		"kubectl apply -k deploy/kubernetes/overlays/sqlite-single", "kubectl create secret generic keyward-store   --from-file=url=store-url",
		"kubectl create secret generic keyward-migrate --from-file=url=migrate-url", "kubectl apply -k deploy/kubernetes/overlays/postgres-fleet",
		"kubectl exec -i deploy/app -c keyward -- /keyward credentials set --org acme --provider twilio <acme-twilio.json",
		"kubectl apply -k deploy/kubernetes/overlays/webhooks-gateway",
	}},
	{"docs/production-docker.md", needsHub, []string{
		"docker buildx build -f deploy/Dockerfile --platform linux/amd64,linux/arm64 -t keyward " +
			`--build-arg VERSION="$(git describe --tags)" --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .`,
		"for image in golang:1.26.8-bookworm gcr.io/distroless/static-debian12:nonroot; do",
		"docker buildx imagetools inspect \"$image\" --format '{{.Manifest.Digest}}'", "done",
		"docker buildx build -f deploy/Dockerfile -t keyward --build-context golang:1.26.8-bookworm=docker-image://golang@sha256:FIRST " +
			"--build-context gcr.io/distroless/static-debian12:nonroot=docker-image://gcr.io/distroless/static-debian12@sha256:SECOND .",
		"cd deploy/compose", `echo "POSTGRES_PASSWORD=$(openssl rand -hex 24)" >.env`, "docker compose run --rm keyward keys generate",
		"docker compose up -d --wait", "docker compose exec -T keyward /keyward credentials set --org acme --provider twilio <acme-twilio.json",
	}},
}

// A command that somebody pastes out of a document has been run, or it is listed with the reason why it could not be.
func TestEveryCommandIsRunOrListed(t *testing.T) {
	seen := map[string]bool{}
	for _, doc := range documents(t) {
		runs := slices.ContainsFunc(pages, func(p page) bool { return p.doc == doc })
		for _, b := range blocks(t, doc) {
			if b.kind != "" {
				if !runs {
					t.Errorf("%s:%d is to be run, and its page is not in pages", doc, b.line)
				}
				continue
			}
			for _, c := range commandsOf(b) {
				if !slices.ContainsFunc(elsewhere, func(n notRun) bool { return n.doc == doc && slices.Contains(n.commands, c) }) {
					t.Errorf("%s:%d: %s\nis neither run (<!-- run --> above its block) nor listed in elsewhere with the reason why not", doc, b.line, c)
				}
				seen[doc+" "+c] = true
			}
		}
	}
	for _, n := range elsewhere {
		for _, c := range n.commands {
			if !seen[n.doc+" "+c] {
				t.Errorf("elsewhere lists %q of %s, which is not there", c, n.doc)
			}
		}
	}
}

// A command that is only listed, or stands in a sentence, is none that there is not: its words and flags are the program's, its target the
// Makefile's.
func TestCommandsInTextExist(t *testing.T) {
	dir, help, n := folder(t), map[string]string{}, 0
	helpOf := func(words string) string {
		if _, asked := help[words]; !asked {
			cmd := exec.Command("bin/keyward", append(strings.Fields(words), "--help")...)
			cmd.Dir = dir
			out, err := cmd.Output()
			if err != nil {
				out = nil
			}
			help[words] = string(out)
		}
		return help[words]
	}
	makefile := read(t, "Makefile")
	ours := regexp.MustCompile(`(?:^|[\s/])keyward((?: [a-z][a-z-]*)+)((?: .*)?)$`)
	flag := regexp.MustCompile(`(?:^| )--([a-z][a-z-]*)`)
	target := regexp.MustCompile(`^make ([a-z-]+)`)
	for _, doc := range documents(t) {
		if doc == "CHANGELOG.md" {
			continue // it tells of what was
		}
		for _, c := range commandsInText(t, doc) {
			if m := target.FindStringSubmatch(c); m != nil && !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: %s: the Makefile has no such target", doc, c)
			}
			m := ours.FindStringSubmatch(c)
			if m == nil || c == "keyward is ready" || strings.HasPrefix(c, "keyward help ") {
				continue // a line of the log; the manual page, which is no command's
			}
			n++
			words := strings.Fields(m[1])
			words = words[:min(2, len(words))]
			said := helpOf(strings.Join(words, " "))
			if len(words) == 2 && (said == "" || strings.HasPrefix(said, "keyward "+words[0]+":")) {
				said = helpOf(words[0]) // the second word was none of the command's
			}
			if said == "" {
				t.Errorf("%s: %s: there is no such command", doc, c)
				continue
			}
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				if f[1] != "help" && !strings.Contains(said, "--"+f[1]) {
					t.Errorf("%s: %s: it has no --%s", doc, c, f[1])
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d commands found", n)
	}
}

// commandsInText are those of the document's blocks, and those in its sentences.
func commandsInText(t *testing.T, doc string) []string {
	t.Helper()
	var all []string
	for _, b := range blocks(t, doc) {
		if b.kind != "output" {
			all = append(all, commandsOf(b)...)
		}
	}
	for _, m := range regexp.MustCompile("`((?:bin/)?keyward [a-z][^`]*|make [a-z][^`]*)`").FindAllStringSubmatch(read(t, doc), -1) {
		all = append(all, m[1])
	}
	return all
}

// documents are all of the repository's.
func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			all = append(all, path)
		}
		return nil
	})
	if err != nil || len(all) < 30 {
		t.Fatalf("%d documents, %v", len(all), err)
	}
	return all
}
