// Package exit holds what a way out is beside its upstream: the address, interface and mark that its connections leave with
// (Source), and the part of a user name in which a client wishes for one (ParseUser). It opens no socket, keeps no session
// and decides nothing: whether a wish is granted is for whoever has the rules and the exits.
package exit
