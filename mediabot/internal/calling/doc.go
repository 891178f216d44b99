// Package calling is the bot's side of Graph call signalling: the webhook that takes
// invites and notifications, and one serial queue a call.
//
// A notification is a claim by whoever posted it. It counts once its token verified as
// one of Teams' calling service for this bot and this tenant, and, for a call in
// progress, once its address carried the secret that only Graph was given for that call.
// A notification for a known call that comes without the secret changes nothing by
// itself: Graph is asked what the call's state is.
//
// Posts are answered at once and worked on afterwards, each call's in series. States
// are ranked and never fall back, terminated is final, a roster is told as what changed
// in it, and a post that comes again changes nothing. Whatever cannot be read is counted
// and left out; the rest of its post is not.
// https://learn.microsoft.com/microsoftteams/platform/bots/calls-and-meetings/call-notifications
package calling
