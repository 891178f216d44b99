// Package calling is the bot's side of Graph call signalling: the webhook that takes invites
// and notifications, one serial queue a call, and the operations on a call.
package calling
