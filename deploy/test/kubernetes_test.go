package test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/validator"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const manifests = repo + "/deploy/kubernetes"

// overlays are what somebody applies.
var overlays = []string{"sqlite-single", "postgres-fleet", "webhooks-gateway", "node-gateway"}

func build(t *testing.T, folder string) []byte {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(manifests, folder))
	if err != nil {
		t.Fatalf("building %s: %v", folder, err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// kubeconform knows no field, no kind and no value that Kubernetes would not take.
func TestManifestsConform(t *testing.T) {
	v := kubeconform(t)
	for _, overlay := range overlays {
		results := v.Validate(overlay, io.NopCloser(bytes.NewReader(build(t, "overlays/"+overlay))))
		if len(results) < 3 {
			t.Errorf("%s: only %d resources", overlay, len(results))
		}
		for _, r := range results {
			sig, err := r.Resource.Signature()
			if err != nil {
				t.Errorf("%s: %v", overlay, err)
				continue
			}
			if r.Status != validator.Valid {
				t.Errorf("%s: %s %s: %v %v", overlay, sig.Kind, sig.Name, r.Err, r.ValidationErrors)
			}
		}
		t.Logf("%s: %d resources are valid", overlay, len(results))
	}
}

func TestMistakesInManifestsAreFound(t *testing.T) {
	v := kubeconform(t)
	good := string(build(t, "overlays/sqlite-single"))
	for what, mistake := range map[string][2]string{
		"a field that does not exist": {"readOnlyRootFilesystem:", "readonlyRootFilesystem:"},
		"a value of another type":     {"replicas: 1", "replicas: one"},
		"a kind in another version":   {"apiVersion: apps/v1", "apiVersion: apps/v1beta1"},
	} {
		bad := strings.Replace(good, mistake[0], mistake[1], 1)
		if bad == good {
			t.Fatalf("%s: %q is not there", what, mistake[0])
		}
		if !slices.ContainsFunc(v.Validate(what, io.NopCloser(strings.NewReader(bad))), func(r validator.Result) bool { return r.Status != validator.Valid }) {
			t.Errorf("%s was not found", what)
		}
	}
}

// The schemas are those of Kubernetes 1.36: schemas/generate.go makes them.
func kubeconform(t *testing.T) validator.Validator {
	t.Helper()
	v, err := validator.New([]string{"schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json"}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A manifest is what the tests look at of a resource.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct{ Spec pod }
	}
}

type pod struct {
	AutomountServiceAccountToken  *bool       `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool       `yaml:"enableServiceLinks"`
	TerminationGracePeriodSeconds int         `yaml:"terminationGracePeriodSeconds"`
	HostNetwork                   bool        `yaml:"hostNetwork"`
	HostPID                       bool        `yaml:"hostPID"`
	InitContainers                []container `yaml:"initContainers"`
	Containers                    []container
	Volumes                       []struct {
		Name     string
		EmptyDir *struct {
			Medium    string
			SizeLimit string `yaml:"sizeLimit"`
		} `yaml:"emptyDir"`
		Secret *struct {
			DefaultMode int `yaml:"defaultMode"`
		}
		HostPath *struct{ Path string } `yaml:"hostPath"`
	}
}

type container struct {
	Name, Image   string
	Args, Command []string
	RestartPolicy string `yaml:"restartPolicy"`
	Env           []struct{ Name, Value string }
	Resources     struct {
		Requests, Limits map[string]string
	}
	StartupProbe, ReadinessProbe, LivenessProbe *probe
	SecurityContext                             struct {
		RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
		RunAsUser                int   `yaml:"runAsUser"`
		Privileged               bool  `yaml:"privileged"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop, Add []string }
		SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	VolumeMounts []mount `yaml:"volumeMounts"`
}

type mount struct {
	Name      string
	MountPath string `yaml:"mountPath"`
	ReadOnly  bool   `yaml:"readOnly"`
}

type probe struct {
	Exec *struct{ Command []string }
}

// UnmarshalYAML reads the probes too, whose names are in camel case.
func (c *container) UnmarshalYAML(n *yaml.Node) error {
	type plain container
	if err := n.Decode((*plain)(c)); err != nil {
		return err
	}
	var probes struct {
		Startup   *probe `yaml:"startupProbe"`
		Readiness *probe `yaml:"readinessProbe"`
		Liveness  *probe `yaml:"livenessProbe"`
	}
	if err := n.Decode(&probes); err != nil {
		return err
	}
	c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = probes.Startup, probes.Readiness, probes.Liveness
	return nil
}

func resources(t *testing.T, overlay string) []manifest {
	t.Helper()
	var all []manifest
	for dec := yaml.NewDecoder(bytes.NewReader(build(t, "overlays/"+overlay))); ; {
		var m manifest
		err := dec.Decode(&m)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}

// eachContainer calls fn for every container of every overlay.
func eachContainer(t *testing.T, fn func(where string, m manifest, c container)) {
	t.Helper()
	n := 0
	for _, overlay := range overlays {
		for _, m := range resources(t, overlay) {
			p := m.Spec.Template.Spec
			for _, c := range slices.Concat(p.InitContainers, p.Containers) {
				n++
				fn(fmt.Sprintf("%s: %s %s, container %s", overlay, m.Kind, m.Metadata.Name, c.Name), m, c)
			}
		}
	}
	if n < 8 {
		t.Fatalf("only %d containers", n)
	}
}

// No container has a right that it does not need. The one step of the node gateway that is root's may change the owner of one folder.
func TestContainersHaveNoRights(t *testing.T) {
	eachContainer(t, func(where string, m manifest, c container) {
		s := c.SecurityContext
		root := m.Metadata.Name == "keyward-node" && c.Name == "folder"
		if !root && (!s.RunAsNonRoot || s.RunAsUser < 1000) {
			t.Errorf("%s runs as user %d", where, s.RunAsUser)
		}
		if !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || !root && len(s.Capabilities.Add) > 0 || root && !slices.Equal(s.Capabilities.Add, []string{"CHOWN"}) {
			t.Errorf("%s has capabilities: %+v", where, s.Capabilities)
		}
		if s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
			t.Errorf("%s may gain rights", where)
		}
		if !s.ReadOnlyRootFilesystem {
			t.Errorf("%s can write to its image", where)
		}
		if s.SeccompProfile.Type != "RuntimeDefault" {
			t.Errorf("%s has the seccomp profile %q", where, s.SeccompProfile.Type)
		}
		p := m.Spec.Template.Spec
		if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
			t.Errorf("%s has a token of the service account", where)
		}
		if p.EnableServiceLinks == nil || *p.EnableServiceLinks {
			t.Errorf("%s gets variables of services", where)
		}
		if p.HostNetwork || p.HostPID {
			t.Errorf("%s is in the node's namespaces", where)
		}
		if c.Resources.Limits["memory"] == "" || c.Resources.Requests["cpu"] == "" {
			t.Errorf("%s asks for no resources, or has no limit: %v", where, c.Resources)
		}
	})
}

// The sidecar is a native one: there before the app, and after it. Its socket is in memory, and the app gets nothing else of it.
func TestSidecarIsNativeAndTheAppSeesItsSocketAlone(t *testing.T) {
	for _, overlay := range []string{"sqlite-single", "postgres-fleet"} {
		for _, m := range resources(t, overlay) {
			if m.Kind != "Deployment" {
				continue
			}
			p := m.Spec.Template.Spec
			if len(p.InitContainers) != 1 || p.InitContainers[0].RestartPolicy != "Always" || len(p.Containers) != 1 {
				t.Fatalf("%s: no native sidecar: %+v", overlay, p)
			}
			app, sidecar := p.Containers[0], p.InitContainers[0]
			if app.SecurityContext.RunAsUser == sidecar.SecurityContext.RunAsUser {
				t.Errorf("%s: the app runs as the sidecar's user, and so is an administrator", overlay)
			}
			for _, v := range app.VolumeMounts {
				if v.Name != "keyward-callers" || !v.ReadOnly {
					t.Errorf("%s: the app mounts %+v", overlay, v)
				}
			}
			inMemory := 0
			for _, v := range p.Volumes {
				if v.EmptyDir != nil {
					if v.EmptyDir.Medium != "Memory" || v.EmptyDir.SizeLimit == "" {
						t.Errorf("%s: volume %s is %+v", overlay, v.Name, *v.EmptyDir)
					}
					inMemory++
				}
				if v.HostPath != nil {
					t.Errorf("%s: volume %s is the node's", overlay, v.Name)
				}
			}
			if inMemory != 2 {
				t.Errorf("%s: %d volumes in memory", overlay, inMemory)
			}
			if p.TerminationGracePeriodSeconds <= 30 {
				t.Errorf("%s: the drain takes longer than the pod is given", overlay)
			}
		}
	}
}

// Kubernetes gives a Secret's files to root and fsGroup: other modes than this one the program would refuse, or could not read.
func TestSecretsAreTheGroupsToRead(t *testing.T) {
	eachContainer(t, func(where string, m manifest, _ container) {
		for _, v := range m.Spec.Template.Spec.Volumes {
			if v.Secret != nil && v.Secret.DefaultMode != 0o440 {
				t.Errorf("%s: Secret %s has mode %04o", where, v.Name, v.Secret.DefaultMode)
			}
		}
	})
}

// Every command, flag and variable is one that the program knows, with a value that it takes, and the files that the ConfigMaps hold are
// configurations that it takes.
func TestManifestsStartWhatTheProgramKnows(t *testing.T) {
	for _, overlay := range overlays {
		all := resources(t, overlay)
		files := t.TempDir()
		for _, m := range all {
			if m.Kind == "ConfigMap" {
				for name, text := range m.Data {
					write(t, filepath.Join(files, name), text)
				}
			}
		}
		write(t, filepath.Join(files, "url"), "postgres://keyward:secret@db/keyward")
		probes := 0
		for _, m := range all {
			p := m.Spec.Template.Spec
			for _, c := range slices.Concat(p.InitContainers, p.Containers) {
				if !strings.Contains(c.Image, "keyward") {
					continue
				}
				where := overlay + ": " + m.Metadata.Name
				env := map[string]string{}
				for _, e := range c.Env {
					value := e.Value
					if at, ok := strings.CutPrefix(value, "/etc/keyward/"); ok {
						mounted := slices.ContainsFunc(c.VolumeMounts, func(v mount) bool { return "/etc/keyward/"+filepath.Dir(at) == v.MountPath })
						if !mounted {
							t.Errorf("%s: %s is in no volume", where, value)
						}
						value = filepath.Join(files, filepath.Base(at))
					}
					env[e.Name] = value
				}
				invocation{where, c.Args, env}.accepted(t)
				for _, pr := range []*probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
					if pr != nil && pr.Exec != nil {
						if pr.Exec.Command[0] != "/keyward" {
							t.Errorf("%s: a probe runs %q", where, pr.Exec.Command)
						}
						invocation{where + ": probe", pr.Exec.Command[1:], nil}.accepted(t)
						probes++
					}
				}
			}
		}
		if probes%3 != 0 || probes == 0 {
			t.Errorf("%s: %d probes", overlay, probes)
		}
	}
}

// Every folder of overlays is built here, and what the README names is there.
func TestEveryOverlayIsTested(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(manifests, "overlays"))
	if err != nil {
		t.Fatal(err)
	}
	readme := read(t, filepath.Join(manifests, "README.md"))
	for _, e := range entries {
		if !slices.Contains(overlays, e.Name()) {
			t.Errorf("overlay %s is not tested", e.Name())
		}
		if !strings.Contains(readme, "overlays/"+e.Name()) {
			t.Errorf("README.md does not name overlay %s", e.Name())
		}
	}
}
