package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

const (
	orderTimeout = 5 * time.Minute // of one order, from the account to the chain
	maxOrders    = 4               // at a time: a CA counts them
)

// issuer asks the CA. It implements certmagic.Issuer and
// certmagic.RenewalInfoGetter in place of certmagic.ACMEIssuer, whose solvers
// listen on ports of their own.
type issuer struct {
	life       context.Context
	key        string
	email      string
	store      *storage
	client     *acmez.Client
	http       *http.Client
	challenges *challenges
	log        *slog.Logger
	replaces   func(name string) *x509.Certificate // nil for a name without a certificate
	orders     chan struct{}
	mu         sync.Mutex // one account is registered, not one per name
}

func newIssuer(life context.Context, o Options, client *http.Client, store *storage, log *slog.Logger) *issuer {
	c := newChallenges()
	return &issuer{
		life: life, key: issuerKey(o.directory()), email: strings.ToLower(o.Email), store: store, http: client, challenges: c, log: log,
		orders: make(chan struct{}, maxOrders),
		client: &acmez.Client{
			Client: &acme.Client{
				Directory: o.directory(), HTTPClient: client, UserAgent: "polyport",
				PollTimeout: orderTimeout, Logger: slog.New(quiet{log.Handler()}),
			},
			ChallengeSolvers: c.solvers(o.challenges()),
		},
	}
}

// issuerKey names the CA's folder in the storage.
func issuerKey(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return certmagic.StorageKeys.Safe(directory)
	}
	return certmagic.StorageKeys.Safe(u.Host + strings.ReplaceAll(strings.TrimRight(u.Path, "/"), "/", "-"))
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return i.key }

// close ends the connections to the CA.
func (i *issuer) close() { i.http.CloseIdleConnections() }

// alive returns a context that ends with ctx, with the Manager, or after orderTimeout.
func (i *issuer) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	stop := context.AfterFunc(i.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	select {
	case i.orders <- struct{}{}:
		defer func() { <-i.orders }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-i.life.Done():
		return nil, i.life.Err()
	}
	if err := i.store.probe(); err != nil {
		return nil, fmt.Errorf("storage: %w", err) // before an order that could not be kept: a CA counts them
	}
	ctx, cancel := i.alive(ctx)
	defer cancel()

	chain, err := i.order(ctx, csr)
	var problem acme.Problem
	if errors.As(err, &problem) && problem.Type == acme.ProblemTypeAccountDoesNotExist {
		// A CA that was set up anew, as private ones are.
		if err := i.store.Delete(ctx, i.accountKey()); err != nil {
			return nil, fmt.Errorf("forget the account that the CA does not know: %w", err)
		}
		chain, err = i.order(ctx, csr)
	}
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
}

// order goes through RFC 8555 section 7.4 once.
func (i *issuer) order(ctx context.Context, csr *x509.CertificateRequest) (acme.Certificate, error) {
	account, err := i.account(ctx)
	if err != nil {
		return acme.Certificate{}, fmt.Errorf("account: %w", err)
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return acme.Certificate{}, err
	}
	if len(csr.DNSNames) == 1 {
		params.Replaces = i.replaces(csr.DNSNames[0])
	}
	chains, err := i.client.ObtainCertificate(ctx, params)
	if params.Replaces != nil && refusesOrder(err) {
		// RFC 9773 section 5: perhaps it knows nothing of the certificate that is to be replaced.
		params.Replaces = nil
		chains, err = i.client.ObtainCertificate(ctx, params)
	}
	if err != nil {
		return acme.Certificate{}, err
	}
	if len(chains) == 0 {
		return acme.Certificate{}, errors.New("the CA gave no chain")
	}
	return chains[0], nil
}

// refusesOrder tells an order that the CA does not take from a challenge that failed.
func refusesOrder(err error) bool {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return false
	}
	_, challenge := problem.Resource.(acme.Authorization)
	return !challenge && problem.Type != acme.ProblemTypeRateLimited && problem.Type != acme.ProblemTypeAccountDoesNotExist
}

// GetRenewalInfo implements certmagic.RenewalInfoGetter (RFC 9773).
func (i *issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (acme.RenewalInfo, error) {
	ctx, cancel := i.alive(ctx)
	defer cancel()
	return i.client.GetRenewalInfo(ctx, cert.Leaf)
}

// storedAccount is an account in the storage, in one file so that it is whole or not there.
type storedAccount struct {
	Account acme.Account `json:"account"`
	Key     string       `json:"key"` // PEM
}

func (i *issuer) accountKey() string {
	who := i.email
	if who == "" {
		who = "nobody"
	}
	return path.Join("accounts", i.key, certmagic.StorageKeys.Safe(who)+".json")
}

// account returns the stored account, or registers one (RFC 8555 section 7.3).
func (i *issuer) account(ctx context.Context) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	account, err := i.loadAccount(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		return account, err
	}
	if err := i.store.Lock(ctx, "account-"+i.key); err != nil {
		return acme.Account{}, err
	}
	defer i.store.Unlock(ctx, "account-"+i.key)
	if account, err = i.loadAccount(ctx); !errors.Is(err, fs.ErrNotExist) {
		return account, err // of another process
	}
	return i.register(ctx)
}

func (i *issuer) register(ctx context.Context) (acme.Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key} // Validate has asked
	if i.email != "" {
		account.Contact = []string{"mailto:" + i.email}
	}
	if account, err = i.client.NewAccount(ctx, account); err != nil {
		return acme.Account{}, fmt.Errorf("register: %w", err)
	}
	if err := i.saveAccount(ctx, account); err != nil {
		return acme.Account{}, fmt.Errorf("save: %w", err)
	}
	i.log.LogAttrs(ctx, slog.LevelInfo, "ACME account registered", slog.String("ca", i.key))
	return account, nil
}

func (i *issuer) saveAccount(ctx context.Context, account acme.Account) error {
	key, err := certmagic.PEMEncodePrivateKey(account.PrivateKey)
	if err != nil {
		return err
	}
	text, err := json.Marshal(storedAccount{account, string(key)})
	if err != nil {
		return err
	}
	return i.store.Store(ctx, i.accountKey(), text)
}

func (i *issuer) loadAccount(ctx context.Context) (acme.Account, error) {
	text, err := i.store.Load(ctx, i.accountKey())
	if err != nil {
		return acme.Account{}, err
	}
	var s storedAccount
	if err := json.Unmarshal(text, &s); err != nil {
		return acme.Account{}, fmt.Errorf("%s: %w", i.accountKey(), err)
	}
	var key crypto.Signer
	if key, err = certmagic.PEMDecodePrivateKey([]byte(s.Key)); err != nil {
		return acme.Account{}, fmt.Errorf("%s: its key is unusable: %w", i.accountKey(), err)
	}
	s.Account.PrivateKey = key
	return s.Account, nil
}

// leaf returns the certificate that is served for a name now.
func (m *Manager) leaf(name string) *x509.Certificate {
	for _, c := range m.cache.AllMatchingCertificates(name) {
		return c.Leaf
	}
	return nil
}
