package httpproxy

// status is a status code of an answer of our own, or one that has a meaning to a
// proxy (RFC 9110 section 15; 429 and 431: RFC 6585 sections 4 and 5).
const (
	statusSwitchingProtocols = 101
	statusOK                 = 200
	statusBadRequest         = 400
	statusForbidden          = 403
	statusNotFound           = 404
	statusMethodNotAllowed   = 405
	statusProxyAuthRequired  = 407
	statusRequestTimeout     = 408
	statusExpectationFailed  = 417
	statusUpgradeRequired    = 426
	statusTooManyRequests    = 429
	statusFieldsTooLarge     = 431
	statusInternalError      = 500
	statusNotImplemented     = 501
	statusBadGateway         = 502
	statusUnavailable        = 503
	statusGatewayTimeout     = 504
)

// The methods that a proxy treats in a way of their own (RFC 9110 section 9.3).
const (
	methodGet     = "GET"
	methodHead    = "HEAD"
	methodPut     = "PUT"
	methodDelete  = "DELETE"
	methodConnect = "CONNECT"
	methodOptions = "OPTIONS"
	methodTrace   = "TRACE"
)

// imfFixdate is the format of a Date field, in UTC (RFC 9110 section 5.6.7).
const imfFixdate = "Mon, 02 Jan 2006 15:04:05 GMT"
