package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// A flags is what one command takes: pflag's set, what the help of it needs, and where each value came from. A value comes from the
// command line, else from the environment (--foo-bar: KEYWARD_FOO_BAR), else from the file named by --config (foo_bar:), where the
// command has that flag, else it is the default.
type flags struct {
	*pflag.FlagSet
	command string // as typed after "keyward"
	about   string // what the command does, one line
	example string // lines to paste
	args    []string

	out, err io.Writer         // where --help goes, and what is worth saying and no mistake
	environ  []string          // of it, only what parse leaves: no value but those of flags
	file     *configFile       // nil: no --config was given
	listing  bool              // parse only takes down what there is, for who lists commands and flags
	misused  bool              // the command line itself is wrong
	complete bool              // every source was read to its end, so that what is not set is known not to be
	defaults map[string]string // as written, where pflag's own text of it reads worse
	from     map[string]origin // only what does not have its default
}

// An origin says where a value came from, and what to call it in a message.
type origin struct {
	source source
	name   string // "--listen", "KEYWARD_LISTEN", "keyward.yaml:3: listen"
}

type source int

const (
	fromDefault source = iota
	fromFile
	fromEnvironment
	fromCommandLine
)

// newFlags begins the flags of a command: its words as typed after "keyward" ("credentials set"), what it does in one line, and an
// example for the end of its help. Flags are added by bind, or by pflag's own methods on the result.
func newFlags(command, about, example string) *flags {
	f := &flags{
		FlagSet: pflag.NewFlagSet(command, pflag.ContinueOnError),
		command: command, about: about, example: example,
		out: os.Stdout, err: os.Stderr, environ: os.Environ(),
		defaults: map[string]string{}, from: map[string]origin{},
	}
	f.SortFlags = false
	f.FlagSet.Usage = func() { fmt.Fprint(f.out, f.help()) }
	return f
}

// A connection is how management commands find the running sidecar: bind it to have --run-dir and --admin-socket.
type connection struct {
	RunDir      string `flag:"run-dir" arg:"DIR" default:".keyward" help:"folder of the sockets, made with mode 0700"`
	AdminSocket string `flag:"admin-socket" arg:"PATH" default:"RUN_DIR/admin.sock" help:"admin API for the sidecar's own uid and root, mode 0600"`
}

// socket is the admin socket's path, the default's RUN_DIR filled in.
func (c *connection) socket() string { return fill(c.AdminSocket, "RUN_DIR", c.RunDir) }

// fill puts a folder into a default like "RUN_DIR/admin.sock".
func fill(s, name, dir string) string {
	return strings.ReplaceAll(s, name+"/", filepath.Clean(dir)+"/")
}

// json adds --json, which every listing takes.
func (f *flags) json() *bool { return f.Bool("json", false, "print JSON") }

// bind adds a flag for each field of the struct that dst points to which has a flag tag, embedded structs included. Tags: flag (the
// name), arg (what stands for its value in the help), default, shown (the default's text where it depends), help, section (the
// heading in the help from this field on), empty ("off": an empty value is one too) and reload ("yes": SIGHUP changes it).
func (f *flags) bind(dst any) {
	v := reflect.ValueOf(dst).Elem()
	section := ""
	f.bindStruct(v, &section)
}

func (f *flags) bindStruct(v reflect.Value, section *string) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if s, ok := field.Tag.Lookup("section"); ok {
			*section = s
		}
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			f.bindStruct(v.Field(i), section)
			continue
		}
		name, ok := field.Tag.Lookup("flag")
		if !ok {
			continue
		}
		f.bindField(v.Field(i), name, field.Tag)
		def := field.Tag.Get("default")
		if shown, ok := field.Tag.Lookup("shown"); ok {
			def = shown
		}
		f.defaults[name] = def
		for key, value := range map[string]string{"section": *section, "arg": field.Tag.Get("arg"), "empty": field.Tag.Get("empty"), "reload": field.Tag.Get("reload")} {
			if value != "" {
				_ = f.SetAnnotation(name, key, []string{value}) // it exists: it was just added
			}
		}
	}
}

// bindField adds one flag and sets its default. A default that its own type cannot read is a mistake of ours, found by any test.
func (f *flags) bindField(v reflect.Value, name string, tag reflect.StructTag) {
	help, def := tag.Get("help"), tag.Get("default")
	switch p := v.Addr().Interface().(type) {
	case *string:
		f.StringVar(p, name, def, help)
		return
	case *[]string:
		f.StringArrayVar(p, name, nil, help)
		return
	case *bool:
		f.BoolVar(p, name, def == "true", help)
		return
	case *int:
		f.IntVar(p, name, 0, help)
	case *time.Duration:
		f.DurationVar(p, name, 0, help)
	case pflag.Value:
		f.Var(p, name, help)
	default:
		panic("no kind of flag: " + v.Type().String())
	}
	flag := f.Lookup(name)
	if err := flag.Value.Set(def); err != nil {
		panic("default of --" + name + ": " + err.Error())
	}
	flag.DefValue = flag.Value.String()
}

// parse reads all sources. Operands are the names of the arguments that must follow the flags, as "ASSISTANT_ID"; "[NAME]" may be
// left out. The error is pflag.ErrHelp after --help (which has been printed), or a *usageError with every problem found.
func (f *flags) parse(args []string, operands ...string) error {
	f.args = operands
	if f.Lookup("config") == nil && (f.Lookup("run-dir") != nil || f.Lookup("data-dir") != nil) {
		f.String("config", "", "the `FILE` of serve: what it says of the flags here counts here too")
	}
	if f.listing {
		return pflag.ErrHelp
	}
	f.forgetEnvironment()
	var p problems
	err := f.ParseAll(args, func(flag *pflag.Flag, value string) error {
		p.add(f.set(flag, origin{fromCommandLine, "--" + flag.Name}, value))
		return nil
	})
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return pflag.ErrHelp
	case err != nil:
		p.add(f.explain(err))
		f.misused = true
		return p.err()
	}
	p.add(f.checkOperands())
	f.misused = len(p) > 0
	f.parseEnvironment(&p)
	f.complete = true
	if config := f.Lookup("config"); config != nil && config.Value.String() != "" {
		f.complete = f.parseServeFile(&p, config.Value.String())
	}
	return p.err()
}

// parseServeFile is parseFile, but for what only asks a sidecar, by a file that the environment names: then a mistake in it is said and
// no more. The sidecar may have refused that file and run on as it was, and a probe that fails would end it.
func (f *flags) parseServeFile(p *problems, path string) bool {
	if f.from["config"].source != fromEnvironment || f.Lookup("data-dir") != nil {
		return f.parseFile(p, path)
	}
	var found problems
	f.parseFile(&found, path)
	if err := found.err(); err != nil {
		fmt.Fprintf(f.err, "keyward: going on without what is wrong: %v\n", err)
	}
	return true
}

// forgetEnvironment drops what is not ours, and the values of variables that are no flag: a key may be among them, and this is kept
// for as long as the program runs.
func (f *flags) forgetEnvironment() {
	var own []string
	for _, s := range f.environ {
		name, _, _ := strings.Cut(s, "=")
		switch {
		case f.ofVariable(name) != nil:
			own = append(own, s)
		case strings.HasPrefix(name, "KEYWARD_"):
			own = append(own, name+"=")
		}
	}
	f.environ = own
}

// ofVariable is the flag that a variable belongs to, or nil.
func (f *flags) ofVariable(name string) *pflag.Flag {
	rest, ok := strings.CutPrefix(name, "KEYWARD_")
	if !ok || rest != strings.ToUpper(rest) {
		return nil
	}
	return f.Lookup(strings.ToLower(strings.ReplaceAll(rest, "_", "-")))
}

func (f *flags) parseEnvironment(p *problems) {
	f.VisitAll(func(flag *pflag.Flag) {
		if f.from[flag.Name].source == fromCommandLine {
			return
		}
		name := envName(flag.Name)
		i := slices.IndexFunc(f.environ, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		if i < 0 {
			return
		}
		value := f.environ[i][len(name)+1:]
		if value == "" && flag.Annotations["empty"] == nil {
			return // set to nothing: where nothing has no meaning of its own, that is the same as not set
		}
		values := []string{value}
		if _, ok := flag.Value.(pflag.SliceValue); ok {
			values = strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\t' })
		}
		for _, v := range values {
			p.add(f.set(flag, origin{fromEnvironment, name}, v))
		}
	})
}

func envName(flag string) string { return "KEYWARD_" + strings.ToUpper(keyName(flag)) }
func keyName(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// strangers are the KEYWARD_ variables that are no flag of this command, sorted.
func (f *flags) strangers() []string {
	var names []string
	for _, s := range f.environ {
		name, _, _ := strings.Cut(s, "=")
		if f.ofVariable(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// set gives a flag its value. A secret's value is not quoted, should it not be one.
func (f *flags) set(flag *pflag.Flag, from origin, value string) error {
	if err := f.Set(flag.Name, value); err != nil {
		why := "must be " + wanted(flag)
		switch flag.Value.(type) {
		case *secretURL, *secretText:
			return fmt.Errorf("%s: %s", from.name, why)
		}
		return fmt.Errorf("%s %q: %s", from.name, value, why)
	}
	f.from[flag.Name] = from
	return nil
}

// isSet says whether the flag was given, anywhere.
func (f *flags) isSet(name string) bool { return f.from[name].source != fromDefault }

// at is what to call a flag in a message: as it was given.
func (f *flags) at(name string) string {
	if from, ok := f.from[name]; ok {
		return from.name
	}
	return "--" + name
}

func (f *flags) checkOperands() error {
	least := 0
	for _, name := range f.args {
		if !strings.HasPrefix(name, "[") {
			least++
		}
	}
	switch n := f.NArg(); {
	case n < least:
		return fmt.Errorf("missing %s; see keyward %s --help", f.args[n], f.command)
	case n > len(f.args): // not quoted: it may be a secret
		return fmt.Errorf("takes %d arguments beside its flags, not %d; see keyward %s --help", len(f.args), n, f.command)
	}
	if i := slices.Index(f.Args(), ""); i >= 0 { // a script's variable that is not set: no word for all of them
		return fmt.Errorf("%s is empty; see keyward %s --help", strings.Trim(f.args[i], "[]"), f.command)
	}
	return nil
}

// explain says what pflag found wrong in the words of the house.
func (f *flags) explain(err error) error {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = name[1:]
		}
		var names []string
		f.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
		return fmt.Errorf("%s: unknown flag; %s", name, suggest(unknown.GetSpecifiedName(), names, "--", "see keyward "+f.command+" --help"))
	case errors.As(err, &bare):
		return fmt.Errorf("--%s: needs a value: %s", bare.GetFlag().Name, wanted(bare.GetFlag()))
	}
	return fmt.Errorf("%w; see keyward %s --help", err, f.command)
}
