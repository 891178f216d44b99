package azure_test

import (
	"encoding/json"
	"testing"

	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/evidence"
	"steno/shared/notification"
	rosters "steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

func TestDatesAndHoldsOfBlobs(t *testing.T) {
	storetest.TestGovernor(t, false, func(*testing.T) storetest.Governed { return azure.NewBlobs(free) })
}

func TestLockedDatesOfBlobs(t *testing.T) {
	storetest.TestGovernor(t, true, func(*testing.T) storetest.Governed { return azure.NewBlobs(free).Locking() })
}

func TestKeyRingInTables(t *testing.T) {
	storetest.TestKeyRing(t, func(*testing.T) evidence.KeyRing { return azure.NewKeys(tables) })
}

func TestNewKeysInTables(t *testing.T) {
	storetest.TestKeysSince(t, azure.NewKeys(tables), func(w evidence.WrappedKey) {
		row, err := json.Marshal(map[string]any{
			"PartitionKey": string(w.Tenant) + "-" + w.Unit, "RowKey": w.ID, "Data@odata.type": "Edm.Binary", "Data": []byte("{"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tables.NewClient(azure.TableKeys).UpsertEntity(t.Context(), row, nil); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMattersInTables(t *testing.T) {
	storetest.TestMatters(t, func(*testing.T) rosters.Matters { return azure.NewMatters(storetest.NewTenant(), tables) })
}

func TestApprovalsInTables(t *testing.T) {
	storetest.TestApprovals(t, func(*testing.T) rosters.Approvals { return azure.NewApprovals(storetest.NewTenant(), tables) })
}

func TestDispositionsInTables(t *testing.T) {
	storetest.TestDispositions(t, func(*testing.T) rosters.Dispositions {
		return azure.NewDispositions(storetest.NewTenant(), tables)
	})
}

func TestGravesInTables(t *testing.T) {
	storetest.TestGraves(t, func(*testing.T) storetest.Cemetery {
		return azure.NewCatalog(storetest.NewTenant(), tables)
	})
}

func TestExportsInTables(t *testing.T) {
	storetest.TestExports(t, func(*testing.T) rosters.Exports { return azure.NewExports(storetest.NewTenant(), tables) })
}

func TestCallRecordsInTables(t *testing.T) {
	storetest.TestCallRecords(t, func(*testing.T) coverage.CallRecords { return azure.NewCallRecords(storetest.NewTenant(), tables) })
}

func TestStatementsInBlobs(t *testing.T) {
	storetest.TestStatements(t, func(_ *testing.T, tenant teams.TenantID) coverage.Statements {
		return azure.NewStatements(tenant, locked)
	})
}

func TestSubscriptionsInTables(t *testing.T) {
	storetest.TestSubscriptions(t, func(*testing.T) notification.Register {
		return azure.NewSubscriptions(storetest.NewTenant(), tables)
	})
}

func TestLookbacksInTables(t *testing.T) {
	storetest.TestLookbacks(t, func(*testing.T) rosters.Lookbacks { return azure.NewLookbacks(storetest.NewTenant(), tables) })
}

func TestFailuresInTables(t *testing.T) {
	storetest.TestFailures(t, func(*testing.T) conversation.Failures { return azure.NewFailures(storetest.NewTenant(), tables) })
}
