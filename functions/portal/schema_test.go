package portal_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"steno/shared/teams"
)

func sum(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// document is the part of OpenAPI 3.1 that the portal's document uses.
type document struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Parameters []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	Responses map[string]struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
	Security []map[string][]string `json:"security"`
}

type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 any               `json:"type"`
	Properties           map[string]schema `json:"properties"`
	Required             []string          `json:"required"`
	AdditionalProperties *bool             `json:"additionalProperties"`
	Items                *schema           `json:"items"`
	Enum                 []string          `json:"enum"`
	Pattern              string            `json:"pattern"`
	Format               string            `json:"format"`
	Minimum              *float64          `json:"minimum"`
	Maximum              *float64          `json:"maximum"`
}

// valid checks a JSON value against a schema and reports every fault. A schema of a
// kind it does not know is a fault too.
func (d document) valid(s schema, v any, at string) error {
	if s.Ref != "" {
		name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/")
		target, there := d.Components.Schemas[name]
		if !ok || !there {
			return fmt.Errorf("%s: reference %s leads nowhere", at, s.Ref)
		}
		return d.valid(target, v, at)
	}
	var kinds []string
	switch t := s.Type.(type) {
	case string:
		kinds = []string{t}
	case []any:
		for _, k := range t {
			kinds = append(kinds, fmt.Sprint(k))
		}
	}
	kind := kindOf(v)
	if kind == "integer" && !slices.Contains(kinds, "integer") {
		kind = "number"
	}
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("%s: %s, want %v", at, kind, kinds)
	}
	switch v := v.(type) {
	case string:
		return validString(s, v, at)
	case []any:
		var faults []error
		for i, e := range v {
			faults = append(faults, d.valid(*s.Items, e, fmt.Sprintf("%s[%d]", at, i)))
		}
		return errors.Join(faults...)
	case map[string]any:
		return d.validObject(s, v, at)
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return "integer"
		}
	}
	return "number"
}

func (d document) validObject(s schema, v map[string]any, at string) error {
	var faults []error
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			faults = append(faults, fmt.Errorf("%s: %s is missing", at, name))
		}
	}
	for name, e := range v {
		p, ok := s.Properties[name]
		if !ok {
			if s.AdditionalProperties != nil && !*s.AdditionalProperties {
				faults = append(faults, fmt.Errorf("%s: %s is not in the schema", at, name))
			}
			continue
		}
		faults = append(faults, d.valid(p, e, at+"."+name))
	}
	return errors.Join(faults...)
}

func validString(s schema, v, at string) error {
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		return fmt.Errorf("%s: %q is none of %v", at, v, s.Enum)
	}
	if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
		return fmt.Errorf("%s: %q does not match %s", at, v, s.Pattern)
	}
	switch s.Format {
	case "", "binary":
	case "date-time":
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	case "date":
		if _, err := time.Parse(time.DateOnly, v); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	case "uuid":
		if _, err := teams.ParsePersonID(v); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	default:
		return fmt.Errorf("%s: format %s is not known here", at, s.Format)
	}
	return nil
}
