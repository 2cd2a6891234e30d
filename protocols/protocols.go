// Package protocols holds the protocol table: what polyport serves on its one
// port. Each protocol is a folder; this package only knows their order.
package protocols

import (
	"errors"
	"fmt"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/protocols/spec"
)

// Rows makes every row of the table, in order of priority. decode fills a
// folder's own options from its [protocols.NAME] table. The error lists every fault, each
// beginning with its place in the file.
func Rows(env spec.Env, decode func(folder string, into any) error) ([]spec.Row, error) {
	var rows []spec.Row
	var errs *multierror.Error
	for _, s := range table {
		more, err := s.New(env, func(into any) error { return decode(s.Name, into) })
		if err != nil {
			errs = multierror.Append(errs, prefixed(s.Name, err))
		}
		rows = append(rows, more...)
	}
	return rows, errs.ErrorOrNil()
}

// prefixed puts the folder's name in front of each fault's key.
func prefixed(folder string, err error) error {
	var list *multierror.Error
	if !errors.As(err, &list) {
		return fmt.Errorf("%s.%w", folder, err)
	}
	var out *multierror.Error
	for _, e := range list.Errors {
		out = multierror.Append(out, fmt.Errorf("%s.%w", folder, e))
	}
	return out
}
