package doctor

import "time"

// judge says whether an answer is fine, and what to tell the owner. It is pure.
func (x *examination) judge(p probe, a answer) (ok bool, detail string) {
	switch a.outcome {
	case reached:
		return true, a.words
	case noPort:
		return false, "cannot connect: " + a.words + ". Is polyport running, and is " + x.address + " one of its addresses?"
	case closed, silent, foreign, failing:
		return false, x.dead(p, a)
	}
	return x.refused(p, a)
}

// dead says what is wrong with a row that does not answer as it should.
func (x *examination) dead(p probe, a answer) string {
	switch {
	case a.outcome == silent && p.name == "reject":
		return "still open after " + x.waited() + ": nothing should wait once no protocol can match. A raw row of yours may be waiting for more"
	case a.outcome == silent:
		return "no answer within " + x.waited() + ": the gateway hangs, or it cannot reach its name servers or the target"
	case a.outcome == foreign:
		return a.words + ": another program may hold " + x.address + ", or the row is switched off on this listener"
	case a.outcome == failing:
		return "the gateway itself is in trouble: " + a.words + ". Look into its log"
	}
	when := "without an answer"
	if a.words != "" {
		when = a.words
	}
	return "closed " + when + ": the row is switched off on this listener (protocols), or the listener expects a PROXY header from here (proxy_protocol_from)"
}

// refused judges a refusal in the protocol's own words, which proves that the row is
// alive. That is enough unless the owner asked for more.
func (x *examination) refused(p probe, a answer) (ok bool, detail string) {
	demanded, target := x.given, x.target.String()
	if p.row == "tls" { // its target is the server name
		demanded, target = x.TLSName != "", x.TLSName
	}
	switch {
	case a.outcome == badUser:
		return false, "alive, but this user and password are not taken: " + a.words
	case a.outcome == needsUser && p.row == "socks4":
		return true, "alive; a user is required, and SOCKS4 carries no password (" + a.words + ")"
	case a.outcome == needsUser && demanded:
		return false, "alive, but a user is required: " + a.words + ". Give a user and a password"
	case a.outcome == needsUser:
		return true, "alive; a user is required (" + a.words + ")"
	case !demanded && a.outcome == denied:
		return true, "alive; refused as it should be (" + a.words + ")"
	case !demanded:
		return true, "alive; it tried the target (" + a.words + ")"
	case a.outcome == denied && p.row == "tls":
		return false, "alive, but " + target + " is refused: " + a.words + ". It needs a route or dial_sni, and a rule with anonymous = true where users are required"
	case a.outcome == denied && p.row == "socks4":
		return false, "alive, but " + target + " was refused or not reached: " + a.words + ". The checks of socks5 and connect tell which"
	case a.outcome == denied:
		return false, "alive, but the rules refuse " + target + ": " + a.words + ". 'polyport explain " + target + "' tells which one"
	}
	return false, "alive, but " + target + " cannot be reached from the gateway: " + a.words
}

// waited is the timeout in words.
func (x *examination) waited() string {
	if x.Timeout < 0 {
		return "the time there was"
	}
	return x.Timeout.Round(time.Millisecond).String()
}
