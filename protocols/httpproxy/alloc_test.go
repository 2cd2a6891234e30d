//go:build linux && !race

package httpproxy

import "testing"

// TestGetAllocations: an exchange like the one before it on its connection costs its
// permit and its identifier. The race detector makes pools forget, so it is measured without.
func TestGetAllocations(t *testing.T) {
	if n := testing.AllocsPerRun(1000, newGetter(t)); n > 2 {
		t.Errorf("an exchange allocates %v times, want 2", n)
	}
}
