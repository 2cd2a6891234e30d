package http1

import "testing"

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct {
		method, raw                   string
		form                          Form
		scheme, host, port, pathQuery string
		origin                        string // as AppendOriginForm gives it
	}{
		{"GET", "/", OriginForm, "", "", "", "/", "/"},
		{"GET", "//a/b?c=d", OriginForm, "", "", "", "//a/b?c=d", "//a/b?c=d"},
		{"GET", "/100%/|\"<>\\^`{}", OriginForm, "", "", "", "/100%/|\"<>\\^`{}", "/100%/|\"<>\\^`{}"},
		{"GET", "http://a", AbsoluteForm, "http", "a", "", "", "/"},
		{"GET", "HTTP://A.Example:80/x", AbsoluteForm, "HTTP", "A.Example", "80", "/x", "/x"},
		{"GET", "http://a:/", AbsoluteForm, "http", "a", "", "/", "/"},
		{"GET", "http://a?q", AbsoluteForm, "http", "a", "", "?q", "/?q"},
		{"GET", "http://a?q/r://s@t", AbsoluteForm, "http", "a", "", "?q/r://s@t", "/?q/r://s@t"},
		{"GET", "http://a/b?", AbsoluteForm, "http", "a", "", "/b?", "/b?"},
		{"GET", "http://[2001:db8::1]:8080/", AbsoluteForm, "http", "[2001:db8::1]", "8080", "/", "/"},
		{"GET", "http://[fe80::1%25eth0]/", AbsoluteForm, "http", "[fe80::1%25eth0]", "", "/", "/"},
		{"GET", "https://a/", AbsoluteForm, "https", "a", "", "/", "/"},
		{"GET", "coap+tcp://a/", AbsoluteForm, "coap+tcp", "a", "", "/", "/"},
		{"GET", "http://1.2.3.4:65535", AbsoluteForm, "http", "1.2.3.4", "65535", "", "/"},
		{"GET", "http://0x7f.1/", AbsoluteForm, "http", "0x7f.1", "", "/", "/"},
		{"GET", "http://a_b!$&'()*+,;=~/", AbsoluteForm, "http", "a_b!$&'()*+,;=~", "", "/", "/"},
		{"OPTIONS", "*", AsteriskForm, "", "", "", "", "*"},
		{"OPTIONS", "http://a:1", AbsoluteForm, "http", "a", "1", "", "*"},
		{"OPTIONS", "http://a/", AbsoluteForm, "http", "a", "", "/", "/"},
		{"OPTIONS", "http://a?q", AbsoluteForm, "http", "a", "", "?q", "/?q"},
		{"OPTIONS", "/x", OriginForm, "", "", "", "/x", "/x"},
		{"CONNECT", "a.example:443", AuthorityForm, "", "a.example", "443", "", ""},
		{"CONNECT", "[::1]:1", AuthorityForm, "", "[::1]", "1", "", ""},
		{"CONNECT", "1.2.3.4:00443", AuthorityForm, "", "1.2.3.4", "00443", "", ""},
	} {
		t.Run(tt.method+" "+tt.raw, func(t *testing.T) {
			got, err := ParseTarget(tt.method, []byte(tt.raw))
			if err != nil {
				t.Fatalf("ParseTarget: %v", err)
			}
			if got.Form != tt.form || string(got.Raw) != tt.raw || string(got.Scheme) != tt.scheme ||
				string(got.Host) != tt.host || string(got.Port) != tt.port || string(got.PathQuery) != tt.pathQuery {
				t.Errorf("got %v %q: scheme %q, host %q, port %q, path and query %q",
					got.Form, got.Raw, got.Scheme, got.Host, got.Port, got.PathQuery)
			}
			if tt.form == AuthorityForm {
				return
			}
			if o := string(got.AppendOriginForm([]byte("x "), tt.method)); o != "x "+tt.origin {
				t.Errorf("origin-form %q, want %q", o, "x "+tt.origin)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, tt := range []struct {
		method, raw string
		want        error
	}{
		{"GET", "", errTargetBytes},
		{"GET", "/a b", errTargetBytes},
		{"GET", "/\x7f", errTargetBytes},
		{"GET", "/\xff", errTargetBytes},
		{"GET", "/a#", errTargetBytes},
		{"GET", "http://a/#b", errTargetBytes},
		{"GET", "*", errTargetForm},
		{"OPTIONS", "**", errTargetForm},
		{"GET", "a.example:80", errTargetForm},
		{"GET", "a.example", errTargetForm},
		{"GET", "http:/a/", errTargetForm},
		{"GET", "urn:a:b", errTargetForm},
		{"GET", "://a/", errTargetForm},
		{"GET", "1http://a/", errTargetForm},
		{"GET", "ht_tp://a/", errTargetForm},
		{"GET", "?q://a/", errTargetForm},
		{"GET", "http:///", errTargetAuthority},
		{"GET", "http://", errTargetAuthority},
		{"GET", "http://:80/", errTargetAuthority},
		{"GET", "http://?q", errTargetAuthority},
		{"GET", "http://a:b/", errTargetAuthority},
		{"GET", "http://a:65536/", errTargetAuthority},
		{"GET", "http://a:000080/", errTargetAuthority},
		{"GET", "http://a:-1/", errTargetAuthority},
		{"GET", "http://a%2eb/", errTargetAuthority},
		{"GET", "http://a\\b/", errTargetAuthority},
		{"GET", "http://a\"b/", errTargetAuthority},
		{"GET", "http://::1/", errTargetAuthority},
		{"GET", "http://[::1/", errTargetAuthority},
		{"GET", "http://[::1]a/", errTargetAuthority},
		{"GET", "http://[]/", errTargetAuthority},
		{"GET", "http://[1.2.3.4]/", errTargetAuthority},
		{"GET", "http://[v1.a]/", errTargetAuthority},
		{"GET", "http://[fe80::1%eth0]/", errTargetAuthority},
		{"GET", "http://[fe80::1%25]/", errTargetAuthority},
		{"GET", "http://[fe80::1%25a%25b]/", errTargetAuthority},
		{"GET", "http://u@a/", errTargetUserinfo},
		{"GET", "http://@a/", errTargetUserinfo},
		{"GET", "http://u:p@a:80/", errTargetUserinfo},
		{"CONNECT", "a", errConnectTarget},
		{"CONNECT", "a:", errConnectTarget},
		{"CONNECT", ":443", errConnectTarget},
		{"CONNECT", "a:x", errConnectTarget},
		{"CONNECT", "a:70000", errConnectTarget},
		{"CONNECT", "a:443/", errConnectTarget},
		{"CONNECT", "u@a:443", errConnectTarget},
		{"CONNECT", "/", errConnectTarget},
		{"CONNECT", "http://a/", errConnectTarget},
		{"CONNECT", "http://a:443", errConnectTarget},
		{"CONNECT", "*", errConnectTarget},
		{"CONNECT", "::1:443", errConnectTarget},
	} {
		t.Run(tt.method+" "+tt.raw, func(t *testing.T) {
			got, err := ParseTarget(tt.method, []byte(tt.raw))
			if err != tt.want {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if got.Raw != nil {
				t.Errorf("a refused target is %+v", got)
			}
		})
	}
}

func TestTargetPortOr(t *testing.T) {
	for raw, want := range map[string]uint16{"http://a": 80, "http://a:": 80, "http://a:0/": 0, "http://a:08080/": 8080, "http://a:65535": 65535} {
		target, err := ParseTarget("GET", []byte(raw))
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if got := target.PortOr(80); got != want {
			t.Errorf("PortOr of %s = %d, want %d", raw, got, want)
		}
	}
}

func TestSplitHostPort(t *testing.T) {
	for _, tt := range []struct {
		value, host, port string
		ok                bool
	}{
		{"", "", "", true},
		{"a", "a", "", true},
		{"a:", "a", "", true},
		{"a:1", "a", "1", true},
		{"[::]", "[::]", "", true},
		{"[::]:1", "[::]", "1", true},
		{":", "", "", false},
		{":1", "", "", false},
		{"a:1:", "", "", false},
		{"[::]1", "", "", false},
		{"[::", "", "", false},
		{"]", "", "", false},
		{"a]", "", "", false},
		{"a b", "", "", false},
		{"a/", "", "", false},
		{"a?", "", "", false},
	} {
		host, port, ok := SplitHostPort([]byte(tt.value))
		if string(host) != tt.host || string(port) != tt.port || ok != tt.ok {
			t.Errorf("SplitHostPort(%q) = %q, %q, %v, want %q, %q, %v", tt.value, host, port, ok, tt.host, tt.port, tt.ok)
		}
	}
}

func TestFormString(t *testing.T) {
	for form, want := range map[Form]string{
		OriginForm: "origin-form", AbsoluteForm: "absolute-form",
		AuthorityForm: "authority-form", AsteriskForm: "asterisk-form", 9: "invalid form",
	} {
		if got := form.String(); got != want {
			t.Errorf("Form(%d).String() = %q, want %q", form, got, want)
		}
	}
}
