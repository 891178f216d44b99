package azure

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// errConflict says that a condition of a write did not hold.
var errConflict = errors.New("table: condition not met")

// hidden is an error of an Azure client whose text leaves out the address of the
// request: table addresses hold row keys, and those hold the ids of people.
type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }

// hide keeps of an error what an operator needs: status, code and request id, or what
// the connection broke on.
func hide(err error) error {
	var re *azcore.ResponseError
	var ue *url.Error
	switch {
	case errors.As(err, &re):
		id := ""
		if re.RawResponse != nil {
			id = re.RawResponse.Header.Get("x-ms-request-id")
		}
		return &hidden{fmt.Sprintf("service answered %d %s (request-id %s)", re.StatusCode, codeOf(re), id), err}
	case errors.As(err, &ue):
		return &hidden{fmt.Sprintf("%s: %v", ue.Op, ue.Err), err}
	}
	return err
}

var innerCode = regexp.MustCompile(`"code":\s*"([A-Za-z]{1,64})"`)

// codeOf finds the error code. A failed transaction comes back as a ResponseError
// with status 202 and no code, since aztables reports the outer answer; the code of
// the failed part stands only in the text.
func codeOf(re *azcore.ResponseError) string {
	if re.ErrorCode != "" || re.StatusCode != http.StatusAccepted {
		return re.ErrorCode
	}
	if m := innerCode.FindStringSubmatch(re.Error()); m != nil {
		return m[1]
	}
	return ""
}

// classify turns a failed condition into errConflict: the row exists that must not, or
// its ETag is another. Other conflicts, such as a table that is being deleted, are
// errors like any other.
func classify(what string, err error) error {
	var re *azcore.ResponseError
	if errors.As(err, &re) {
		code := codeOf(re)
		if code == "EntityAlreadyExists" || code == "UpdateConditionNotSatisfied" || re.StatusCode == http.StatusPreconditionFailed {
			return fmt.Errorf("%s: %w", what, errConflict)
		}
	}
	return fmt.Errorf("%s: %w", what, hide(err))
}

func isNotFound(err error) bool {
	var re *azcore.ResponseError
	return errors.As(err, &re) && re.StatusCode == http.StatusNotFound && !strings.HasPrefix(re.ErrorCode, "Table")
}
