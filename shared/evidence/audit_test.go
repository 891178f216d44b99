package evidence_test

import (
	"strings"
	"testing"
	"time"

	"steno/shared/evidence"
)

// documented is the example of the vault's documentation, with an unwrap in it, on one line.
// https://learn.microsoft.com/azure/key-vault/general/logging
const documented = `{"time":"2016-01-05T01:32:01.2691226Z","resourceId":"/SUBSCRIPTIONS/361DA5D4/RESOURCEGROUPS/CONTOSOGROUP/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/CONTOSOKEYVAULT","operationName":"KeyUnwrap","operationVersion":"7.4","category":"AuditEvent","resultType":"Success","resultSignature":"OK","resultDescription":"","durationMs":"78","callerIpAddress":"104.40.82.76","correlationId":"c1","identity":{"claim":{"http://schemas.microsoft.com/identity/claims/objectidentifier":"d9da5048-2737-4770-bd64-aaaaaaaaaaaa","appid":"1950a258-227b-4e31-a9cf-aaaaaaaaaaaa"}},"properties":{"clientInfo":"azsdk-go","requestUri":"https://contosokeyvault.vault.azure.net/keys/steno-wrap/abc/unwrapkey?api-version=7.4","id":"https://contosokeyvault.vault.azure.net/keys/steno-wrap/abc","httpStatusCode":200}}`

func TestRecordsOfTheVaultAreReadAsDocumented(t *testing.T) {
	want := evidence.VaultUse{
		At: time.Date(2016, 1, 5, 1, 32, 1, 269122600, time.UTC), Operation: "KeyUnwrap", Host: "contosokeyvault.vault.azure.net",
		Key: "steno-wrap", Version: "abc", Caller: "1950a258-227b-4e31-a9cf-aaaaaaaaaaaa", Address: "104.40.82.76", Request: "c1", Granted: true,
	}
	if got, err := evidence.ParseVaultUse([]byte(documented)); err != nil || got != want || !got.Opens() {
		t.Errorf("%+v, %v", got, err)
	}
	for what, c := range map[string]struct {
		from, to string
		opens    bool
	}{
		"refused":            {`"httpStatusCode":200`, `"httpStatusCode":403`, false},
		"status as a text":   {`"httpStatusCode":200`, `"httpStatusCode":"200"`, true},
		"status is left out": {`,"httpStatusCode":200`, ``, true},
		"decrypted":          {`KeyUnwrap`, `KeyDecrypt`, true},
		"wrapped":            {`KeyUnwrap`, `KeyWrap`, false},
	} {
		got, err := evidence.ParseVaultUse([]byte(strings.Replace(documented, c.from, c.to, 1)))
		if err != nil || got.Opens() != c.opens {
			t.Errorf("%s: opens %t, %v", what, got.Opens(), err)
		}
	}
	got, err := evidence.ParseVaultUse([]byte(strings.Replace(documented, `"appid"`, `"other"`, 1)))
	if err != nil || got.Caller != "d9da5048-2737-4770-bd64-aaaaaaaaaaaa" {
		t.Errorf("without an application: %q, %v", got.Caller, err)
	}
	for _, bad := range []string{``, `{}`, `[]`, documented[:100], strings.Replace(documented, "AuditEvent", "Other", 1), strings.Replace(documented, "2016-01", "2016-13", 1)} {
		if u, err := evidence.ParseVaultUse([]byte(bad)); err == nil {
			t.Errorf("%.40q is read as %+v", bad, u)
		}
	}
}
