package load

import "polyport/bench/measure"

// chain measures tunnels through a next hop: opened, one octet there and back, closed.
func (l *Load) chain() measure.Measurement {
	return l.result(measure.Chain, "", l.operate(l.opts.Workers, l.echoAndReset))
}

// echoAndReset opens a tunnel, has the origin echo one octet, and closes it with a reset: each tunnel takes three connections, and all
// programs the same next hop, so the ports that are left in TIME_WAIT would not last.
func (l *Load) echoAndReset(int) error {
	c, err := l.end.tunnel([]byte("E1"))
	if err != nil {
		return err
	}
	defer reset(c)
	return expect(c, []byte("1"))
}

// chainBulk measures one tunnel through a next hop, and compares what comes out of others with what went in.
func (l *Load) chainBulk() []measure.Measurement {
	var all []measure.Measurement
	for _, d := range []direction{down, up} {
		all = append(all, l.result(measure.ChainBulk, d.String()+"1", l.transfer(d, 1)))
	}
	for _, d := range []direction{down, up} {
		m := l.verify(d)
		m.Work = measure.ChainBulk
		all = append(all, m)
	}
	return all
}
