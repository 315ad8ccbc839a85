package test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeFolder = repo + "/deploy/compose"

// compose loads the file as docker compose does: against the specification's schema, with what it refers to.
func compose(t *testing.T) *types.Project {
	t.Helper()
	file := composeFolder + "/compose.yaml"
	dir, err := filepath.Abs(composeFolder)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: file, Content: []byte(read(t, file))}},
		Environment: types.Mapping{"POSTGRES_PASSWORD": "made-up"},
	}, func(o *loader.Options) { o.SkipResolveEnvironment = false })
	if err != nil {
		t.Fatalf("loading %s: %v", file, err)
	}
	return p
}

func TestComposeStartsWhatTheProgramKnows(t *testing.T) {
	keyward := compose(t).Services["keyward"]
	env := map[string]string{}
	for _, i := range dockerfile(t, repo+"/deploy/Dockerfile") {
		if i.name == "ENV" {
			for _, e := range strings.Fields(i.text) {
				name, value, _ := strings.Cut(e, "=")
				env[name] = value
			}
		}
	}
	for name, value := range keyward.Environment {
		env[name] = *value
	}
	if env["KEYWARD_CONFIG"] != keyward.Configs[0].Target {
		t.Errorf("the configuration stands at %s", keyward.Configs[0].Target)
	}
	env["KEYWARD_CONFIG"] = composeFolder + "/keyward.yaml"
	invocation{"compose.yaml", []string{"serve"}, env}.accepted(t)
}

// Neither Keyward nor the app has a right that it does not need; the app has a user of its own, is in the socket's group, and gets nothing but the socket.
func TestComposeGivesNoRights(t *testing.T) {
	p := compose(t)
	for _, name := range []string{"keyward", "app"} {
		s := p.Services[name]
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s has rights: %+v %+v %+v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published at %q", name, port.HostIP)
			}
		}
	}
	app := p.Services["app"]
	if app.User != "1000:1000" || !slices.Equal(app.GroupAdd, []string{"65532"}) {
		t.Errorf("the app runs as %s in %v", app.User, app.GroupAdd)
	}
	if len(app.Volumes) != 1 || app.Volumes[0].Source != "callers" || !app.Volumes[0].ReadOnly {
		t.Errorf("the app mounts %+v", app.Volumes)
	}
	if _, ok := p.Services["postgres"].Networks["outside"]; ok || !p.Networks["store"].Internal {
		t.Error("the store can be reached from outside")
	}
}
