package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/keyward/keyward/caller"
)

// A configFile is what the file named by --config says: sections of its own, and the flags.
type configFile struct {
	fileSections `yaml:",inline"`
	Flags        map[string]yaml.Node `yaml:",inline"`

	lines map[string]int // :: place, as "providers[0].hosts[1]" → its line
}

// fileSections are what stands in the file alone.
type fileSections struct {
	Callers   []caller.Spec  `yaml:"callers" reload:"yes" help:"who may connect to the unix socket and what they may do; the first rule that fits a peer counts. Absent: the sidecar's own uid, for every org"`
	Listeners []listenerSpec `yaml:"listeners" help:"further TCP listeners with a fixed upstream or org, for SDKs that drop a path prefix"`
	Providers []customSpec   `yaml:"providers" help:"APIs that Keyward has no file for: one key in one header, to a closed list of hosts"`
	Webhooks  []webhookSpec  `yaml:"webhooks" help:"where verified webhooks go, if not to --webhook-target; the most specific route wins"`
}

// A listenerSpec is one of listeners: in the file.
type listenerSpec struct {
	Address  string `yaml:"address" help:"where it listens, as 127.0.0.1:7460; loopback only without --allow-remote"`
	Upstream string `yaml:"upstream" help:"the provider's host that its requests go to; absent: as the request says"`
	Org      string `yaml:"org" help:"the org that its requests are for; absent: as the request says"`
}

// A customSpec is one of providers: in the file.
type customSpec struct {
	Name   string   `yaml:"name" help:"as it stands in paths, flags and callers:; not that of a provider that there is already"`
	Title  string   `yaml:"title" help:"as people write it; absent: the name"`
	Hosts  []string `yaml:"hosts" help:"the public host names that its key may go to, exact; the first is its default host"`
	Header string   `yaml:"header" help:"the header that the key goes into; absent: Authorization"`
	Prefix *string  `yaml:"prefix" help:"the word in front of the key; absent: Bearer in Authorization, else none"`
	Probe  string   `yaml:"probe" help:"path that is asked with GET to verify a key: 2xx is valid, 401 invalid, 403 valid and restricted; absent: keys are not verified"`
}

// A webhookSpec is one of webhooks: in the file.
type webhookSpec struct {
	Provider string `yaml:"provider" help:"absent: any"`
	Org      string `yaml:"org" help:"absent: any"`
	Target   string `yaml:"target" help:"as --webhook-target"`
	Mode     string `yaml:"mode" help:"durable: acknowledged once stored, delivered with retries; sync: the app's answer goes back. Absent: as the provider's messages need it"`
	Redact   *bool  `yaml:"redact" help:"true or false, as --webhook-redact, which counts where it is absent"`
}

// parseFile reads the file and sets every flag that neither the command line nor the environment has set. A key that belongs to
// serve alone is no mistake in the file of another command. The result says whether the file could be read.
func (f *flags) parseFile(p *problems, path string) bool {
	file, err := readConfigFile(path)
	if e := (*usageError)(nil); errors.As(err, &e) {
		p.add(err)
		return false
	} else if err != nil {
		p.addf("%s %w", f.at("config"), err)
		return false
	}
	f.file = file
	var keys []string
	for key := range file.Flags {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(file.Flags[a].Line, file.Flags[b].Line) })
	for _, key := range keys {
		node := file.Flags[key]
		at := fmt.Sprintf("%s:%d: %s", path, node.Line, key)
		flag := f.Lookup(strings.ReplaceAll(key, "_", "-"))
		switch {
		case strings.Contains(key, "-"):
			p.addf("%s: unknown key; write %s", at, keyName(key))
		case key == "config":
			p.addf("%s: a file cannot name another; give --config on the command line or KEYWARD_CONFIG", at)
		case flag == nil && !isServeKey(key):
			p.addf("%s: unknown key; %s", at, suggest(key, serveKeys(), "", "see keyward serve --help"))
		case flag == nil || f.from[flag.Name].source > fromFile:
		default:
			f.setFromFile(p, flag, origin{fromFile, at}, &node)
		}
	}
	file.Flags = nil // a password may be among them
	return true
}

func (f *flags) setFromFile(p *problems, flag *pflag.Flag, from origin, node *yaml.Node) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	_, list := flag.Value.(pflag.SliceValue)
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		p.add(f.set(flag, from, node.Value))
	case node.Kind == yaml.SequenceNode && list && scalars(node):
		for _, item := range node.Content {
			p.add(f.set(flag, from, item.Value))
		}
	case node.Kind == yaml.MappingNode && list && scalars(node): // HOST: URL reads better than a list of HOST=URL
		for i := 0; i < len(node.Content); i += 2 {
			p.add(f.set(flag, from, node.Content[i].Value+"="+node.Content[i+1].Value))
		}
	case list:
		p.addf("%s: must be %s, or a list of such", from.name, wanted(flag))
	default:
		p.addf("%s: must be %s; leave the key out for the default", from.name, wanted(flag))
	}
}

func scalars(node *yaml.Node) bool {
	for _, n := range node.Content {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return false
		}
	}
	return true
}

// serveKeys are the keys of the file: those of serve's flags, and the sections.
func serveKeys() []string {
	f := newServeFlags(&Config{})
	var keys []string
	f.VisitAll(func(flag *pflag.Flag) { keys = append(keys, keyName(flag.Name)) })
	return append(keys, yamlKeys(reflect.TypeFor[fileSections]())...)
}

func isServeKey(key string) bool { return slices.Contains(serveKeys(), key) }

// yamlKeys are the keys that a struct reads.
func yamlKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return keys
}

// readConfigFile reads the file strictly: what it does not know, it refuses.
func readConfigFile(path string) (*configFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, plainError(err))
	}
	file := &configFile{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	switch err := d.Decode(file); {
	case errors.Is(err, io.EOF): // an empty file is one with defaults
		return file, nil
	case err != nil:
		return nil, explainYAML(path, err)
	}
	file.lines = map[string]int{}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err == nil && len(doc.Content) == 1 {
		linesOf(file.lines, "", doc.Content[0])
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, usagef("%s: holds a second document after ---; make it one", path)
	}
	return file, nil
}

// linesOf notes the line of every value below a node.
func linesOf(lines map[string]int, place string, node *yaml.Node) {
	lines[place] = node.Line
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			linesOf(lines, strings.TrimPrefix(place+"."+node.Content[i].Value, "."), node.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, n := range node.Content {
			linesOf(lines, fmt.Sprintf("%s[%d]", place, i), n)
		}
	}
}

// at names a place in the file with its line, or that of what it is in.
func (f *configFile) at(path, place string) string {
	for in := place; in != ""; in = in[:max(strings.LastIndexAny(in, ".["), 0)] {
		if n := f.lines[in]; n > 0 {
			return fmt.Sprintf("%s:%d: %s", path, n, place)
		}
	}
	return path + ": " + place
}

var (
	yamlUnknown = regexp.MustCompile(`^line (\d+): field (.+) not found in type (\S+)$`)
	yamlType    = regexp.MustCompile("^line (\\d+): cannot unmarshal (\\S+)(?: `(.*)`)? into (\\S+)$")
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
)

// explainYAML says what the YAML library found in the words of the house, each problem with its file and line.
func explainYAML(path string, err error) error {
	var p problems
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		text := yamlLine.ReplaceAllString(err.Error(), path+":$1: ")
		if text == err.Error() {
			text = path + ": " + strings.TrimPrefix(text, "yaml: ")
		}
		if strings.Contains(text, "alphabetic or numeric character") {
			text += `; write "*" in quotes`
		}
		p.add(errors.New(text))
		return p.err()
	}
	for _, line := range typed.Errors {
		if m := yamlUnknown.FindStringSubmatch(line); m != nil {
			known := yamlKeys(fileTypes[m[3]])
			p.addf("%s:%s: %s: unknown key; %s", path, m[1], m[2], suggest(m[2], known, "", "there are "+strings.Join(known, ", ")))
		} else if m := yamlType.FindStringSubmatch(line); m != nil {
			p.addf("%s:%s: %s", path, m[1], explainType(m[2], m[3], m[4]))
		} else {
			p.add(errors.New(yamlLine.ReplaceAllString(line, path+":$1: ")))
		}
	}
	return p.err()
}

// fileTypes are the types whose names the YAML library puts into its errors.
var fileTypes = map[string]reflect.Type{
	"caller.Spec":       reflect.TypeFor[caller.Spec](),
	"caller.Unix":       reflect.TypeFor[caller.Unix](),
	"main.listenerSpec": reflect.TypeFor[listenerSpec](),
	"main.customSpec":   reflect.TypeFor[customSpec](),
	"main.webhookSpec":  reflect.TypeFor[webhookSpec](),
}

func explainType(tag, value, want string) string {
	found := map[string]string{"!!map": "keys with values", "!!seq": "a list"}[tag]
	if value != "" {
		found = strconv.Quote(value)
	}
	must := "text"
	switch {
	case want == "uint32":
		must = "a whole number"
	case want == "bool":
		must = "true or false"
	case want == "[]string":
		must = `a list of texts, as ["*"]`
	case strings.HasPrefix(want, "[]"):
		must = "a list, each item beginning with -"
	case want == "main.configFile" || fileTypes[want] != nil:
		must = "keys with values, as name: value"
	}
	if found == "" {
		return "must be " + must
	}
	return found + " must be " + must
}
