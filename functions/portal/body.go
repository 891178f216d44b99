package portal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"steno/shared/policy"
	"steno/shared/rawjson"
)

// maxBody is the most bytes a change may have; the host's route has the same limit.
const maxBody = 64 << 10

// readBody reads the JSON object of a change into a struct. Members that the struct does
// not have, in exactly that case, and members that stand twice are refused: nobody sets
// what only the server sets (who, when, approved by whom), and two readers of one body
// must agree. encoding/json alone would match names in any case and take the last.
func readBody(r *http.Request, into any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return badRequest("the body did not come whole")
	}
	if len(b) > maxBody {
		return &problem{Status: http.StatusRequestEntityTooLarge, Title: "Too large", Detail: fmt.Sprintf("at most %d bytes", maxBody)}
	}
	known := map[string]bool{}
	for f := range reflect.TypeOf(into).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	seen := map[string]bool{}
	err = rawjson.Members(b, func(name string, _ []byte) error {
		switch {
		case !known[name]:
			return badRequest(fmt.Sprintf("%.40q is no member of this request", name))
		case seen[name]:
			return badRequest(fmt.Sprintf("%q stands there twice", name))
		}
		seen[name] = true
		return nil
	})
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	if err != nil || !json.Valid(b) {
		return badRequest("want a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return badRequest("a member is not of the kind that the API's document says")
	}
	return nil
}

// refused turns a decision of package policy into an answer: what it refuses it says why,
// and that it says to whoever asked.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, policy.ErrRefused):
		return &problem{Status: http.StatusUnprocessableEntity, Title: "Refused", Detail: reasons(err)}
	case errors.Is(err, policy.ErrNotFound):
		return errNotFound
	case errors.Is(err, policy.ErrChanged), errors.Is(err, policy.ErrExists):
		return &problem{Status: http.StatusConflict, Title: "Changed meanwhile", Detail: "Somebody else was at it. Look again."}
	}
	return err
}

// reasons is what refusals say, without the word that marks them.
func reasons(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, policy.ErrRefused.Error()+": ")
	}
	return strings.Join(lines, "; ")
}
