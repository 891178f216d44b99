package host

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The .NET types of values that Go's own types do not tell apart.
type (
	dateTime       time.Time // kind Unspecified on the wire: no zone, whole seconds
	dateTimeOffset time.Time // whole seconds
	guid           string
)

// field is a member of an object whose order is kept.
type field struct {
	name  string
	value any
}

// encodeValue writes a value as the host does for a custom handler (azure-functions-host, GetHttpScriptInvocationContextValue, with
// Newtonsoft.Json): strings are serialized twice, numbers and booleans become strings, bytes base64, arrays a string that holds an
// array; only objects stay what they are.
func encodeValue(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case string:
		return quote(string(quote(v))), nil
	case guid:
		return quote(string(quote(string(v)))), nil
	case []byte:
		return quote(base64.StdEncoding.EncodeToString(v)), nil
	case int, int64, uint32, bool:
		return quote(fmt.Sprint(v)), nil
	case dateTime:
		return quote(time.Time(v).UTC().Format("2006-01-02T15:04:05")), nil
	case dateTimeOffset:
		return quote(time.Time(v).Format("2006-01-02T15:04:05-07:00")), nil
	case []string, [][]byte, []dateTime:
		b, err := encodeJSON(v)
		return quote(string(b)), err
	}
	return encodeJSON(v)
}

// encodeJSON writes a value inside an object or array, as the serializer writes it there.
func encodeJSON(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case nil:
		return json.RawMessage("null"), nil
	case json.RawMessage:
		return v, nil
	case string:
		return quote(v), nil
	case guid:
		return quote(string(v)), nil
	case []byte:
		return quote(base64.StdEncoding.EncodeToString(v)), nil
	case json.Number:
		return json.RawMessage(v), nil
	case int:
		return strconv.AppendInt(nil, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case bool:
		return strconv.AppendBool(nil, v), nil
	case dateTime:
		t := time.Time(v)
		if t.IsZero() {
			return quote("0001-01-01T00:00:00"), nil
		}
		return quote(t.UTC().Format("2006-01-02T15:04:05.9999999Z")), nil
	case dateTimeOffset:
		return quote(time.Time(v).Format("2006-01-02T15:04:05.9999999-07:00")), nil
	case []string:
		return encodeArray(v)
	case [][]byte:
		return encodeArray(v)
	case []dateTime:
		return encodeArray(v)
	case []any:
		return encodeArray(v)
	case []field:
		return encodeObject(v, encodeJSON)
	case map[string]any:
		return encodeObject(sortedFields(v), encodeJSON)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

func encodeArray[T any](items []T) (json.RawMessage, error) {
	b := []byte{'['}
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		e, err := encodeJSON(any(it))
		if err != nil {
			return nil, err
		}
		b = append(b, e...)
	}
	return append(b, ']'), nil
}

func encodeObject(fields []field, encode func(any) (json.RawMessage, error)) (json.RawMessage, error) {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		e, err := encode(f.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		b = append(append(append(b, quote(f.name)...), ':'), e...)
	}
	return append(b, '}'), nil
}

func sortedFields(m map[string]any) []field {
	fields := make([]field, 0, len(m))
	for name, v := range m {
		fields = append(fields, field{name, v})
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return fields
}

// quote writes a JSON string as Newtonsoft.Json does: control characters, U+0085, U+2028 and U+2029 escaped, the rest as it is.
func quote(s string) json.RawMessage {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r < ' ' || r == 0x85 || r == 0x2028 || r == 0x2029:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// encodeEnvelope writes the body of an invocation. A string value that is a JSON object first spills its members into the metadata,
// over the host's own of the same name; names that end in "trigger" and nulls are left out.
func encodeEnvelope(name string, value any, metadata []field) ([]byte, error) {
	if text, ok := value.(string); ok {
		metadata = spill(metadata, text)
	}
	metadata = slices.DeleteFunc(slices.Clone(metadata), func(f field) bool {
		return f.value == nil || strings.HasSuffix(strings.ToLower(f.name), "trigger")
	})
	data, err := encodeObject([]field{{name, value}}, encodeValue)
	if err != nil {
		return nil, fmt.Errorf("encode data: %w", err)
	}
	meta, err := encodeObject(metadata, encodeValue)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return encodeObject([]field{{"Data", data}, {"Metadata", meta}}, encodeJSON)
}

// spill copies the members of a JSON object into metadata (azure-functions-host, Utility.ApplyBindingData). Arrays stay out.
func spill(metadata []field, text string) []field {
	var members map[string]any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&members); err != nil {
		return metadata // not an object, so nothing to spill
	}
	out := slices.Clone(metadata)
	for _, m := range sortedFields(members) {
		switch v := m.value.(type) {
		case []any:
			continue
		case json.Number:
			m.value = v.String()
		case bool:
			m.value = strconv.FormatBool(v)
		}
		out = slices.DeleteFunc(out, func(f field) bool { return f.name == m.name })
		out = append(out, m)
	}
	return out
}
