import java.io.FileInputStream;
import java.net.Authenticator;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.ProxySelector;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Fetches a URL through a proxy: Fetch http|socks HOST PORT USER PASSWORD CA_FILE URL. USER may be "". */
public class Fetch {
    public static void main(String[] args) throws Exception {
        var proxy = new InetSocketAddress(args[1], Integer.parseInt(args[2]));
        var login = args[3].isEmpty() ? null : new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                return new PasswordAuthentication(args[3], args[4].toCharArray());
            }
        };
        var url = args[6];
        System.out.print(args[0].equals("http") ? http(proxy, login, trust(args[5]), url) : socks(proxy, login, trust(args[5]), url));
    }

    static SSLContext trust(String file) throws Exception {
        var roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        try (var in = new FileInputStream(file)) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        var trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trusted.init(roots);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trusted.getTrustManagers(), null);
        return context;
    }

    /** Asks twice on one client, which keeps its connection. */
    static String http(InetSocketAddress proxy, Authenticator login, SSLContext tls, String url) throws Exception {
        var builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).proxy(ProxySelector.of(proxy)).sslContext(tls).connectTimeout(Duration.ofSeconds(30));
        if (login != null) {
            builder.authenticator(login);
        }
        var client = builder.build();
        var request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(50)).build();
        client.send(request, HttpResponse.BodyHandlers.discarding());
        var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException("status " + answer.statusCode());
        }
        return answer.body();
    }

    static String socks(InetSocketAddress proxy, Authenticator login, SSLContext tls, String url) throws Exception {
        Authenticator.setDefault(login);
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
        var connection = new URL(url).openConnection(new Proxy(Proxy.Type.SOCKS, proxy));
        connection.setReadTimeout(50_000);
        try (var in = connection.getInputStream()) {
            return new String(in.readAllBytes());
        }
    }
}
