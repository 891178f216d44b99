// Package notification is about Graph's change notifications with resource data, the early
// lane of messages: which subscriptions there are, what Graph sends for them, and how that
// is decrypted.
// https://learn.microsoft.com/graph/change-notifications-with-resource-data
//
// The lane is lossy by nature: Graph drops notifications of a slow endpoint without telling,
// sends some twice, and in any order. It brings a version within seconds, also one that is
// edited away before the next export; that nothing is missing is the export's to prove.
//
// Graph encrypts each message under a key of its own, and that under the public key of the
// subscription. Whoever receives a notification needs no key (ReadDelivery); the items stay
// encrypted on the queue (EncodeParcel) until the one function opens them that holds the
// private keys and decides whose content may be kept.
package notification
