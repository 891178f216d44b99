package storetest_test

import (
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

func TestGovernorInMemory(t *testing.T) {
	for _, lock := range []bool{false, true} {
		storetest.TestGovernor(t, lock, func(*testing.T) storetest.Governed { return &storetest.Blobs{Lock: lock} })
	}
}

func TestNewKeysInMemory(t *testing.T) {
	s := new(storetest.Keys)
	storetest.TestKeysSince(t, s, func(w evidence.WrappedKey) {
		s.Tamper(w.Tenant, w.Unit, w.ID, evidence.WrappedKey{})
	})
}

func TestKeyRingInMemory(t *testing.T) {
	storetest.TestKeyRing(t, func(*testing.T) evidence.KeyRing { return new(storetest.Keys) })
}

func TestMattersInMemory(t *testing.T) {
	storetest.TestMatters(t, func(*testing.T) policy.Matters { return new(storetest.Matters) })
}

func TestApprovalsInMemory(t *testing.T) {
	storetest.TestApprovals(t, func(*testing.T) policy.Approvals { return new(storetest.Approvals) })
}

func TestDispositionsInMemory(t *testing.T) {
	storetest.TestDispositions(t, func(*testing.T) policy.Dispositions { return new(storetest.Dispositions) })
}

func TestGravesInMemory(t *testing.T) {
	storetest.TestGraves(t, func(*testing.T) storetest.Cemetery { return new(storetest.Catalog) })
}

func TestExportsInMemory(t *testing.T) {
	storetest.TestExports(t, func(*testing.T) policy.Exports { return new(storetest.Exports) })
}

func TestVaultLogInMemory(t *testing.T) {
	storetest.TestVaultLog(t, func(*testing.T) (evidence.VaultLog, func(time.Time, ...[]byte)) {
		l := new(storetest.VaultLog)
		return l, func(received time.Time, lines ...[]byte) {
			for _, b := range lines {
				l.Write(received, b)
			}
		}
	})
}

func TestCallRecordsInMemory(t *testing.T) {
	storetest.TestCallRecords(t, func(*testing.T) coverage.CallRecords { return new(storetest.CallRecords) })
}

func TestStatementsInMemory(t *testing.T) {
	storetest.TestStatements(t, func(*testing.T, teams.TenantID) coverage.Statements { return new(storetest.Statements) })
}

func TestSubscriptionsInMemory(t *testing.T) {
	storetest.TestSubscriptions(t, func(*testing.T) notification.Register { return new(storetest.Subscriptions) })
}

func TestLookbacksInMemory(t *testing.T) {
	storetest.TestLookbacks(t, func(*testing.T) policy.Lookbacks { return new(storetest.Lookbacks) })
}

func TestFailuresInMemory(t *testing.T) {
	storetest.TestFailures(t, func(*testing.T) conversation.Failures { return new(storetest.Failures) })
}
