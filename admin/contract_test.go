package admin

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/keyward/keyward/provider"
)

// A contract is the API's document as the tests hold requests and answers against it.
type contract struct {
	doc *openapi3.T
	mux *http.ServeMux // finds the document's path of a request: ours are written as ServeMux writes its patterns

	mu       sync.Mutex
	answered map[string]bool // :: operation id → whether it was answered well
}

var theContract = sync.OnceValues(func() (*contract, error) {
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder)
	doc, err := openapi3.NewLoader().LoadFromData(describe(provider.All))
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	c := &contract{doc: doc, mux: http.NewServeMux(), answered: map[string]bool{}}
	for path, item := range doc.Paths.Map() {
		c.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			found, _ := r.Context().Value(foundKey{}).(*found)
			found.path, found.item, found.params = path, item, map[string]string{}
			for _, part := range strings.Split(path, "/") {
				if name, ok := strings.CutPrefix(part, "{"); ok {
					name = strings.TrimSuffix(name, "}")
					found.params[name] = r.PathValue(name)
				}
			}
		})
		for _, op := range item.Operations() {
			for _, answer := range op.Responses.Map() {
				for _, media := range answer.Value.Content {
					closed(media.Schema, map[*openapi3.Schema]bool{})
				}
			}
		}
	}
	return c, nil
})

type foundKey struct{}

type found struct {
	path   string
	item   *openapi3.PathItem
	params map[string]string
}

// closed lets an answer have the members that the document names and no others. The document itself leaves that open, so that programs
// which are made of it stand a new one.
func closed(ref *openapi3.SchemaRef, seen map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || seen[ref.Value] {
		return
	}
	s := ref.Value
	seen[s] = true
	if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		s.AdditionalProperties.Has = new(bool)
	}
	for _, p := range s.Properties {
		closed(p, seen)
	}
	closed(s.Items, seen)
	closed(s.AdditionalProperties.Schema, seen)
}

// hold fails the test when a request or its answer is not as the document says: an answer must be documented, and a request that the
// document does not allow must have been refused.
func (c *contract) hold(t testing.TB, req *http.Request, body string, a answer) {
	t.Helper()
	problem := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s %s: %s\nrequest %.300s\nanswer %d %.500s", req.Method, req.URL, fmt.Sprintf(format, args...), body, a.status, a.body)
	}
	f := &found{}
	probe := req.Clone(context.WithValue(context.Background(), foundKey{}, f))
	probe.Method = http.MethodGet
	c.mux.ServeHTTP(discard{}, probe)
	if f.item == nil {
		if a.status != http.StatusNotFound && a.status != http.StatusUnauthorized && a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests {
			problem("a path that the document does not have")
		}
		return
	}
	method := req.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	op := f.item.GetOperation(method)
	if op == nil {
		if a.status < 400 {
			problem("a method that the document does not have")
		}
		return
	}
	asked := req.Clone(context.Background())
	asked.Method = method
	asked.Body = io.NopCloser(strings.NewReader(body))
	if body != "" {
		asked.Header.Set("Content-Type", "application/json")
	}
	in := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: f.params, QueryParams: asked.URL.Query(),
		Route:   &routers.Route{Spec: c.doc, Path: f.path, PathItem: f.item, Method: method, Operation: op},
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, SkipSettingDefaults: true},
	}
	if a.status < 400 {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			problem("it was done, and the document does not allow it: %v", err)
		}
		for name := range asked.URL.Query() {
			if f.path == "/healthz" {
				break // whatever a probe says, the process is alive
			}
			if !slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.In == "query" && p.Value.Name == name }) {
				problem("it was done, and the document has no parameter %s", name)
			}
		}
		c.mu.Lock()
		c.answered[op.OperationID] = true
		c.mu.Unlock()
	}
	if req.Method == http.MethodHead {
		return
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader([]byte(a.body))), Options: in.Options,
	}
	if strings.Contains(a.header.Get("Content-Type"), "ndjson") {
		out.Body = nil // lines: the test that asks for them looks at each
		out.Options = &openapi3filter.Options{ExcludeResponseBody: true, IncludeResponseStatus: true}
	}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		problem("the answer is not as the document says: %v", err)
	}
}

// discard is a ResponseWriter that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestDocumentHasEveryRouteAndNoOther(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, r := range routes() {
		served[r.method+" "+r.path] = true
		item := c.doc.Paths.Value(r.path)
		if item == nil || item.GetOperation(r.method) == nil {
			t.Errorf("openapi.json lacks %s %s", r.method, r.path)
		}
		if r.method != http.MethodGet && actions[r.method+" "+strings.Replace(r.path, ownIntegrations, orgIntegrations, 1)] == "" {
			t.Errorf("a refused %s %s would have no name in the audit log: add it to actions", r.method, r.path)
		}
	}
	ids := map[string]bool{}
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !served[method+" "+path] {
				t.Errorf("openapi.json has %s %s, which there is not", method, path)
			}
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s %s: operationId %q missing or there twice, or no summary or tag", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
		}
	}
	for key := range actions {
		method, path, _ := strings.Cut(key, " ")
		if served[method+" "+path] {
			continue
		}
		t.Errorf("actions has %s, which there is not", key)
	}
	for path := range shared {
		if c.doc.Paths.Value(path) == nil {
			t.Errorf("shared has %s, which there is not", path)
		}
	}
}

// The document says of each provider's credential what the table says that everything else is driven by.
func TestDocumentHasEveryFieldOfEveryProvider(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	of := c.doc.Components.Schemas["Credential"].Value.AnyOf
	if len(of) != len(provider.All) {
		t.Fatalf("%d schemas of credentials", len(of))
	}
	for i, p := range provider.All {
		holdFields(t, p.Name, p.Fields, of[i].Value)
	}
}

func holdFields(t *testing.T, of string, fields []provider.Field, s *openapi3.Schema) {
	t.Helper()
	if len(s.Properties) != len(fields) || s.AdditionalProperties.Has == nil || *s.AdditionalProperties.Has {
		t.Errorf("%s: %d fields in the document, %d in the table, or it is open to more", of, len(s.Properties), len(fields))
	}
	for _, f := range fields {
		ref := s.Properties[f.Name]
		if ref == nil {
			t.Errorf("%s: the document lacks %s", of, f.Name)
			continue
		}
		in := ref.Value
		if in.Description != f.Help || in.WriteOnly != f.Secret || slices.Contains(s.Required, f.Name) != f.Required {
			t.Errorf("%s.%s: help, secret or required differ: %q, %t", of, f.Name, in.Description, in.WriteOnly)
		}
		text := in
		switch f.Kind {
		case provider.List:
			text = in.Items.Value
		case provider.TextOrList:
			text = in.AnyOf[0].Value
		case provider.Object:
			holdFields(t, of+"."+f.Name, f.Members, in)
			continue
		}
		pattern := ""
		if f.Pattern != nil {
			pattern = f.Pattern.String()
		}
		var options []string
		for _, v := range text.Enum {
			if s, ok := v.(string); ok {
				options = append(options, s)
			}
		}
		if text.Pattern != pattern || !slices.Equal(options, f.Options) {
			t.Errorf("%s.%s: pattern %q, options %v", of, f.Name, text.Pattern, options)
		}
	}
}

func TestDocumentIsServed(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	a := s.must(200, "GET", "/api/openapi.json", "")
	if a.header.Get("Content-Type") != "application/json" || a.body != string(describe(provider.All)) || a.object(t)["openapi"] != "3.1.0" {
		t.Errorf("%v %.100s", a.header, a.body)
	}
}

// TestMain checks, when all tests ran, that they asked for everything that the document has: else it was held against nothing.
func TestMain(m *testing.M) {
	code := m.Run()
	all := true
	for _, name := range []string{"test.run", "test.skip", "test.fuzz", "test.list"} {
		all = all && flag.Lookup(name).Value.String() == ""
	}
	if c, err := theContract(); code == 0 && all && err == nil {
		for path, item := range c.doc.Paths.Map() {
			for method, op := range item.Operations() {
				if !c.answered[op.OperationID] {
					fmt.Fprintf(os.Stderr, "no test had a good answer to %s %s\n", method, path)
					code = 1
				}
			}
		}
	}
	os.Exit(code)
}
