package keyvault

import (
	"encoding/json"
	"net"
	"net/http"
)

// operations are the names under which the log has them.
// https://learn.microsoft.com/azure/key-vault/general/logging
var operations = map[string]string{
	OpCreate: "KeyCreate", OpRotate: "KeyRotate", OpGet: "KeyGet", OpWrap: "KeyWrap", OpUnwrap: "KeyUnwrap", OpSign: "KeySign", OpVerify: "KeyVerify",
}

// listener remembers the status of an answer.
type listener struct {
	http.ResponseWriter
	status int
}

func (l *listener) WriteHeader(status int) {
	l.status = status
	l.ResponseWriter.WriteHeader(status)
}

// audit logs an answered request.
func (v *Vault) audit(r *http.Request, op, name, id string, claims map[string]any, status int) {
	if k, err := v.find(name, id); err == nil {
		id = k.ID
	}
	claim := map[string]any{}
	for _, c := range []string{"appid", "azp", "oid"} {
		if text, ok := claims[c].(string); ok {
			claim[c] = text
		}
	}
	result := "Success"
	if status != http.StatusOK {
		result = "Failed"
	}
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	at := v.cfg.Now().UTC()
	line, err := json.Marshal(map[string]any{
		"time": at.Format("2006-01-02T15:04:05.0000000Z"), "category": "AuditEvent", "operationName": operations[op], "operationVersion": r.URL.Query().Get("api-version"),
		"resourceId": "/SUBSCRIPTIONS/0/RESOURCEGROUPS/STENO/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/STENO", "resultType": result, "resultSignature": http.StatusText(status),
		"callerIpAddress": address, "correlationId": r.Header.Get("X-Ms-Client-Request-Id"), "identity": map[string]any{"claim": claim},
		"properties": map[string]any{"id": kid(r, name, id), "requestUri": r.URL.String(), "httpStatusCode": status},
	})
	if err == nil { // texts and numbers alone: it cannot fail
		v.cfg.Audit(at, line)
	}
}
