import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** A workload that uses java-spiffe, told what to do line by line on standard input; answers are JSON lines. */
public class Main {
    private final DefaultX509Source x509;
    private final WorkloadApiClient api;
    private final String socket;
    private JwtSource jwt;

    Main(String socket) throws Exception {
        this.socket = socket;
        x509 = DefaultX509Source.newSource(DefaultX509Source.X509SourceOptions.builder()
                .spiffeSocketPath(socket).initTimeout(Duration.ofSeconds(60)).build());
        api = DefaultWorkloadApiClient.newClient(
                DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(socket).build());
    }

    public static void main(String[] arguments) throws Exception {
        Main main = new Main(arguments[0]);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String answer;
            try {
                answer = main.answer(line.trim().split(" "));
            } catch (Exception error) {
                answer = json("error", String.valueOf(error));
            }
            System.out.println(answer);
        }
        System.exit(0);
    }

    private String answer(String[] order) throws Exception {
        switch (order[0]) {
            case "svid":
                return svid();
            case "changed": // waits until the serial number is another one
                while (serial().equals(order[1])) {
                    Thread.sleep(20);
                }
                return svid();
            case "jwt": {
                JwtSvid svid = jwt().fetchJwtSvid(order[1]);
                return json("id", svid.getSpiffeId().toString(), "token", svid.getToken());
            }
            case "verify": // with the bundle that was fetched
                return json("id", JwtSvid.parseAndValidate(order[2], jwt(), Set.of(order[1])).getSpiffeId().toString());
            case "validate": // by the Workload API
                return json("id", api.validateJwtSvid(order[2], order[1]).getSpiffeId().toString());
            case "listen":
                return listen();
            case "dial":
                return dial(order[1], order[2]);
            default:
                throw new IllegalArgumentException("unknown order");
        }
    }

    private JwtSource jwt() throws Exception {
        if (jwt == null) {
            jwt = DefaultJwtSource.newSource(JwtSourceOptions.builder()
                    .spiffeSocketPath(socket).initTimeout(Duration.ofSeconds(60)).build());
        }
        return jwt;
    }

    private String serial() {
        String serial = x509.getX509Svid().getLeaf().getSerialNumber().toString(16);
        return serial.length() % 2 == 0 ? serial : "0" + serial;
    }

    private String svid() throws Exception {
        X509Svid svid = x509.getX509Svid();
        int roots = x509.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain()).getX509Authorities().size();
        String said = json("id", svid.getSpiffeId().toString(), "serial", serial());
        return said.substring(0, said.length() - 1) + ",\"roots\":" + roots + "}";
    }

    /** Says `pong` to everybody whose identity is valid. */
    private String listen() throws Exception {
        SSLContext context = SpiffeSslContextFactory.getSslContext(
                SslContextOptions.builder().x509Source(x509).acceptAnySpiffeId().build());
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 50, java.net.InetAddress.getLoopbackAddress());
        listener.setNeedClientAuth(true);
        Thread thread = new Thread(() -> {
            while (true) {
                try (SSLSocket connection = (SSLSocket) listener.accept()) {
                    connection.setSoTimeout(10_000);
                    if (connection.getInputStream().readNBytes(4).length == 4) {
                        connection.getOutputStream().write("pong".getBytes());
                    }
                } catch (Exception refused) {
                    System.err.println(refused);
                }
            }
        });
        thread.setDaemon(true);
        thread.start();
        return json("address", "127.0.0.1:" + listener.getLocalPort());
    }

    /** Says `ping` to the workload with this identity and hears what it says. */
    private String dial(String address, String id) throws Exception {
        SSLContext context = SpiffeSslContextFactory.getSslContext(SslContextOptions.builder()
                .x509Source(x509).acceptedSpiffeIdsSupplier(() -> Set.of(SpiffeId.parse(id))).build());
        String[] parts = address.split(":");
        try (SSLSocket connection = (SSLSocket) context.getSocketFactory()
                .createSocket(parts[0], Integer.parseInt(parts[1]))) {
            connection.setSoTimeout(10_000);
            connection.getOutputStream().write("ping".getBytes());
            return json("said", new String(connection.getInputStream().readNBytes(4)));
        }
    }

    private static String json(String... members) {
        StringBuilder text = new StringBuilder("{");
        for (int at = 0; at < members.length; at += 2) {
            String value = members[at + 1].replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
            text.append(at == 0 ? "" : ",").append('"').append(members[at]).append("\":\"").append(value).append('"');
        }
        return text.append('}').toString();
    }
}
