package sim

import (
	"fmt"
	"strings"
	"time"
)

// filter is what the $filter of an export may say: a range of lastModifiedDateTime, both ends exclusive, and clauses
// about the sender and the type.
type filter struct {
	after, before time.Time // zero: no bound
	any           [][]clause
}

type clause struct {
	property string
	not      bool
	value    string
}

// The properties that clauses may name, and whether `ne` is documented for them.
var filterable = map[string]bool{
	"from/user/id":                             false,
	"from/user/userIdentityType":               false,
	"from/application/applicationIdentityType": false,
	"messageType":                              true,
}

// operationKinds are OData's names of the operators, as the refusals have them.
var operationKinds = map[string]string{
	"eq": "Equal", "ne": "NotEqual", "gt": "GreaterThan", "lt": "LessThan", "ge": "GreaterThanOrEqual", "le": "LessThanOrEqual",
}

// refusal is why the service does not accept a query, in its own sentence.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// parseFilter reads clauses joined by `and` and `or`, with parentheses around a group of alternatives:
//
//	lastModifiedDateTime gt A and lastModifiedDateTime lt B and (from/user/id eq 'x' or from/user/id eq 'y')
//
// `or` binds weaker than `and`, as in OData, except that a date range holds for all alternatives, as in the samples of
// https://learn.microsoft.com/en-us/graph/api/chats-getallmessages. identities is false for channels, where the
// documentation offers the range alone.
func parseFilter(s string, identities bool) (filter, error) {
	var f filter
	words, err := filterWords(s)
	if err != nil {
		return f, err
	}
	if len(words) == 0 {
		return f, nil
	}
	depth := 0
	var all []clause // the alternative being read
	flush := func() {
		if len(all) > 0 {
			f.any = append(f.any, all)
			all = nil
		}
	}
	for len(words) > 0 {
		for len(words) > 0 && words[0] == "(" {
			depth++
			words = words[1:]
		}
		if len(words) < 3 {
			return f, refuse("Syntax error at position %d in '%s'.", len(s), s)
		}
		c, err := f.clause(words[0], words[1], words[2], identities)
		if err != nil {
			return f, err
		}
		if c.property != "" {
			all = append(all, c)
		}
		words = words[3:]
		for len(words) > 0 && words[0] == ")" {
			depth--
			words = words[1:]
		}
		if len(words) == 0 {
			break
		}
		switch words[0] {
		case "or":
			flush()
		case "and":
		default:
			return f, refuse("Syntax error: unexpected '%s' in '%s'.", words[0], s)
		}
		if words = words[1:]; len(words) == 0 {
			return f, refuse("Syntax error at position %d in '%s'.", len(s), s)
		}
	}
	flush()
	if depth != 0 {
		return f, refuse("Syntax error: unbalanced parentheses in '%s'.", s)
	}
	return f, nil
}

// clause checks one comparison. A bound is kept in f, and the returned clause is then empty.
func (f *filter) clause(property, op, value string, identities bool) (clause, error) {
	kind, known := operationKinds[op]
	if !known {
		return clause{}, refuse("Syntax error: '%s' is not an operator.", op)
	}
	refused := refuse("The entity property '%s' and operationKind '%s' is not allowed in $filter query.", property, kind)
	if property == "lastModifiedDateTime" {
		at, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return clause{}, refuse("Invalid date literal '%s'.", value)
		}
		switch {
		case op == "gt" && f.after.IsZero():
			f.after = at
		case op == "lt" && f.before.IsZero():
			f.before = at
		default:
			return clause{}, refused
		}
		return clause{}, nil
	}
	ne, ok := filterable[property]
	quoted := len(value) >= 2 && value[0] == '\'' && value[len(value)-1] == '\''
	if !ok || !identities || !quoted || (op != "eq" && !(op == "ne" && ne)) {
		return clause{}, refused
	}
	return clause{property, op == "ne", strings.ReplaceAll(value[1:len(value)-1], "''", "'")}, nil
}

// filterWords splits at blanks and parentheses outside quotes.
func filterWords(s string) ([]string, error) {
	var words []string
	for i := 0; i < len(s); {
		switch s[i] {
		case ' ':
			i++
		case '(', ')':
			words = append(words, s[i:i+1])
			i++
		case '\'':
			end := i + 1
			for ; ; end++ {
				if end >= len(s) {
					return nil, refuse("There is an unterminated string literal at position %d in '%s'.", i, s)
				}
				if s[end] == '\'' && end+1 < len(s) && s[end+1] == '\'' {
					end++
				} else if s[end] == '\'' {
					break
				}
			}
			words = append(words, s[i:end+1])
			i = end + 1
		default:
			n := strings.IndexAny(s[i:], " ()'")
			if n < 0 {
				n = len(s) - i
			}
			words = append(words, s[i:i+n])
			i += n
		}
	}
	return words, nil
}

func (f *filter) window(modified int64) bool {
	at := millis(modified)
	return (f.after.IsZero() || at.After(f.after)) && (f.before.IsZero() || at.Before(f.before))
}

func (f *filter) match(m *message, v *version) bool {
	if !f.window(v.modified) {
		return false
	}
	if len(f.any) == 0 {
		return true
	}
	for _, all := range f.any {
		ok := true
		for _, c := range all {
			ok = ok && (m.property(c.property) == c.value) != c.not
		}
		if ok {
			return true
		}
	}
	return false
}

// property is what a clause compares; a property that the message does not have is empty.
func (m *message) property(name string) string {
	switch {
	case name == "messageType" && m.system:
		return "systemEventMessage"
	case name == "messageType":
		return "message"
	case name == "from/user/id" && m.sender != nil:
		return string(m.sender.ID)
	case name == "from/user/userIdentityType" && m.sender != nil:
		return m.sender.Identity
	case name == "from/application/applicationIdentityType":
		return m.app
	}
	return ""
}
