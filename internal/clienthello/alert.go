package clienthello

import "fmt"

// Alert is the description of a TLS alert (RFC 8446 section 6).
type Alert uint8

// Alerts that a gateway which holds no key can truthfully send. All are fatal.
const (
	AlertUnexpectedMessage Alert = 10
	AlertRecordOverflow    Alert = 22
	AlertIllegalParameter  Alert = 47
	AlertAccessDenied      Alert = 49
	AlertDecodeError       Alert = 50
	AlertProtocolVersion   Alert = 70
	AlertInternalError     Alert = 80
	AlertMissingExtension  Alert = 109
	AlertUnrecognizedName  Alert = 112
)

// String returns the alert's name in RFC 8446.
func (a Alert) String() string {
	switch a {
	case AlertUnexpectedMessage:
		return "unexpected_message"
	case AlertRecordOverflow:
		return "record_overflow"
	case AlertIllegalParameter:
		return "illegal_parameter"
	case AlertAccessDenied:
		return "access_denied"
	case AlertDecodeError:
		return "decode_error"
	case AlertProtocolVersion:
		return "protocol_version"
	case AlertInternalError:
		return "internal_error"
	case AlertMissingExtension:
		return "missing_extension"
	case AlertUnrecognizedName:
		return "unrecognized_name"
	}
	return fmt.Sprintf("alert(%d)", uint8(a))
}

// Record returns the alert as a plaintext record of level fatal. Its version is
// TLS 1.2 as RFC 8446 section 5.1 has it; nothing has been negotiated yet, and
// clients of older versions take it.
func (a Alert) Record() []byte { return []byte{21, 3, 3, 0, 2, 2, byte(a)} }
