package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// VaultUse is one use of a vault key, as the vault's own audit log has it.
type VaultUse struct {
	At        time.Time
	Operation string // KeyUnwrap, KeyDecrypt, KeySign …
	Host      string // of the vault
	Key       string // name of the key, empty if the operation has none
	Version   string
	Caller    string // application id of the caller's token, or its object id where it has none
	Address   string // from where
	Request   string // correlation id, which a client may choose
	Granted   bool   // it was done, and not refused
}

// Opens reports whether the use gave away what was wrapped. Steno unwraps; decryption by the
// same key does the same.
func (u VaultUse) Opens() bool {
	return u.Granted && (u.Operation == "KeyUnwrap" || u.Operation == "KeyDecrypt")
}

// VaultLogRead counts what a reading of the log came across.
type VaultLogRead struct {
	Records    int // within the time asked for, of any operation
	Unreadable int // lines that are no audit records
}

// VaultLog is the audit log that a vault writes somewhere out of our reach.
type VaultLog interface {
	// Uses calls f for every record whose time is in [from, to), in no particular order, each
	// once however often it was delivered. Records that arrive later than late after their time
	// are missed. An error of f ends it.
	Uses(ctx context.Context, from, to time.Time, late time.Duration, f func(VaultUse) error) (VaultLogRead, error)
}

// ParseVaultUse reads one record of category AuditEvent.
// https://learn.microsoft.com/azure/key-vault/general/logging
func ParseVaultUse(line []byte) (VaultUse, error) {
	var r struct {
		Time          time.Time `json:"time"`
		Category      string    `json:"category"`
		OperationName string    `json:"operationName"`
		ResultType    string    `json:"resultType"`
		Address       string    `json:"callerIpAddress"`
		CorrelationID string    `json:"correlationId"`
		Identity      struct {
			Claim map[string]any `json:"claim"`
		} `json:"identity"`
		Properties struct {
			ID     string      `json:"id"`
			Status json.Number `json:"httpStatusCode"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return VaultUse{}, fmt.Errorf("vault log: a line that is no record: %w", err)
	}
	if r.Time.IsZero() || r.OperationName == "" || !strings.EqualFold(r.Category, "AuditEvent") {
		return VaultUse{}, fmt.Errorf("vault log: a record of category %q without time or operation", r.Category)
	}
	u := VaultUse{
		At: r.Time.UTC(), Operation: r.OperationName, Address: r.Address, Request: r.CorrelationID,
		// Where the two differ the status is that of the answer. A record without one is taken for granted.
		Granted: r.Properties.Status == "200" || r.Properties.Status == "" && !strings.EqualFold(r.ResultType, "Unauthorized") && !strings.EqualFold(r.ResultType, "Failed"),
	}
	for _, claim := range []string{"appid", "azp", "http://schemas.microsoft.com/identity/claims/objectidentifier", "oid"} {
		if v, ok := r.Identity.Claim[claim].(string); ok && v != "" {
			u.Caller = v
			break
		}
	}
	if id, err := url.Parse(r.Properties.ID); err == nil {
		u.Host = id.Host
		if parts := strings.Split(strings.Trim(id.Path, "/"), "/"); len(parts) >= 2 && parts[0] == "keys" {
			u.Key = parts[1]
			if len(parts) == 3 {
				u.Version = parts[2]
			}
		}
	}
	return u, nil
}
