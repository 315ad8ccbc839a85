//go:build ignore

// Command generate writes the JSON schemas that kubeconform validates the manifests with, in the form of kubernetes-json-schema's strict ones:
// one file for each kind below, and _definitions.json with all that they refer to. Its input is api/openapi-spec/swagger.json of
// k8s.io/kubernetes:
//
//	go mod download -json k8s.io/kubernetes@v1.36.0     # prints the folder
//	go run generate.go FOLDER/api/openapi-spec/swagger.json
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// kinds are those that deploy/kubernetes has, by the names that kubeconform looks for.
var kinds = map[string]string{
	"deployment-apps-v1":            "io.k8s.api.apps.v1.Deployment",
	"daemonset-apps-v1":             "io.k8s.api.apps.v1.DaemonSet",
	"job-batch-v1":                  "io.k8s.api.batch.v1.Job",
	"configmap-v1":                  "io.k8s.api.core.v1.ConfigMap",
	"namespace-v1":                  "io.k8s.api.core.v1.Namespace",
	"persistentvolumeclaim-v1":      "io.k8s.api.core.v1.PersistentVolumeClaim",
	"service-v1":                    "io.k8s.api.core.v1.Service",
	"networkpolicy-networking-v1":   "io.k8s.api.networking.v1.NetworkPolicy",
	"poddisruptionbudget-policy-v1": "io.k8s.api.policy.v1.PodDisruptionBudget",
}

type object = map[string]any

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var swagger struct{ Definitions map[string]object }
	if err := json.Unmarshal(text, &swagger); err != nil {
		return err
	}
	used := object{}
	var take func(name string) error
	take = func(name string) error {
		if used[name] != nil {
			return nil
		}
		d, ok := swagger.Definitions[name]
		if !ok {
			return fmt.Errorf("%s is not defined", name)
		}
		used[name] = strict(name, d)
		for _, other := range refs(d) {
			if err := take(other); err != nil {
				return err
			}
		}
		return nil
	}
	for _, file := range slices.Sorted(maps.Keys(kinds)) {
		name := kinds[file]
		if err := take(name); err != nil {
			return err
		}
		if err := write(file+".json", object{"$ref": "_definitions.json#/definitions/" + name}); err != nil {
			return err
		}
	}
	return write("_definitions.json", object{"definitions": used})
}

// strict is a definition without prose, and without fields that it does not name.
func strict(name string, d object) object {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "IntOrString":
		return object{"oneOf": []any{object{"type": "string"}, object{"type": "integer"}}}
	case "Quantity":
		return object{"oneOf": []any{object{"type": "string"}, object{"type": "number"}}}
	}
	out := clean(d).(object)
	if _, has := out["properties"]; has {
		out["additionalProperties"] = false
	}
	if gvk, ok := d["x-kubernetes-group-version-kind"].([]any); ok && len(gvk) == 1 {
		g := gvk[0].(object)
		version := g["version"].(string)
		if g["group"] != "" {
			version = g["group"].(string) + "/" + version
		}
		if p, ok := out["properties"].(object); ok && p["kind"] != nil {
			p["kind"] = object{"type": "string", "enum": []any{g["kind"]}}
			p["apiVersion"] = object{"type": "string", "enum": []any{version}}
			required, _ := out["required"].([]any)
			out["required"] = append(required, "apiVersion", "kind")
		}
	}
	return out
}

func clean(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for key, value := range v {
			_, isText := value.(string)
			switch {
			case key == "description" && isText, strings.HasPrefix(key, "x-kubernetes-"), key == "default":
			case key == "$ref":
				out[key] = strings.Replace(value.(string), "#/", "_definitions.json#/", 1)
			default:
				out[key] = clean(value)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = clean(v[i])
		}
		return out
	}
	return v
}

func refs(v any) []string {
	var out []string
	switch v := v.(type) {
	case object:
		for key, value := range v {
			if ref, ok := value.(string); ok && key == "$ref" {
				out = append(out, strings.TrimPrefix(ref, "#/definitions/"))
				continue
			}
			out = append(out, refs(value)...)
		}
	case []any:
		for _, e := range v {
			out = append(out, refs(e)...)
		}
	}
	return out
}

func write(path string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
