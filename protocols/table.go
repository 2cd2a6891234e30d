package protocols

import (
	"polyport/protocols/httpproxy"
	"polyport/protocols/raw"
	"polyport/protocols/reject"
	"polyport/protocols/socks4"
	"polyport/protocols/socks5"
	"polyport/protocols/spec"
	"polyport/protocols/tls"
)

// table is the protocol table, ONE line per folder. Its order is priority: a
// row is chosen only once every row above it has said a definite no.
var table = []spec.Spec{
	{Name: "raw", New: raw.New},
	{Name: "httpproxy", New: httpproxy.New},
	{Name: "socks4", New: socks4.New},
	{Name: "socks5", New: socks5.New},
	{Name: "tls", New: tls.New},
	{Name: "reject", New: reject.New},
}
