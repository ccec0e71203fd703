// kube-api: etcd, kube-apiserver and five kube-controller-manager loops in one process, loopback only.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

func die(err error) {
	if err != nil {
		fmt.Println("error:", err)
		clean()
		os.Exit(1)
	}
}

// sock is a unix socket in the working directory; etcd wants it to look like host:port.
func sock(name string) []url.URL { return []url.URL{{Scheme: "unix", Host: name}} }

var inDir bool // the working directory is -dir
var keep *bool // data and certificates outlive the process

func clean() {
	for _, p := range []string{"etcd:1", "etcd:2", "etcd"} {
		if inDir && !(*keep && p == "etcd") {
			os.RemoveAll(p)
		}
	}
}

func writePEM(name, typ string, der []byte, mode os.FileMode) []byte {
	b := pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	die(os.WriteFile(name, b, mode))
	return b
}

// issue writes name.crt and name.key, signed by parent (self-signed CA where parent is nil).
func issue(name string, t, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, crypto.Signer, []byte, []byte) {
	if *keep {
		if crt, key, cp, kp, ok := issued(name); ok {
			return crt, key, cp, kp
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	die(err)
	t.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	t.NotBefore, t.NotAfter, t.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0), true
	t.KeyUsage |= x509.KeyUsageDigitalSignature
	if parent == nil {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	die(err)
	k8, err := x509.MarshalPKCS8PrivateKey(key)
	die(err)
	crt, err := x509.ParseCertificate(der)
	die(err)
	return crt, key, writePEM(name+".crt", "CERTIFICATE", der, 0o644), writePEM(name+".key", "PRIVATE KEY", k8, 0o600)
}

// issued reads what an earlier run has issued.
func issued(name string) (*x509.Certificate, crypto.Signer, []byte, []byte, bool) {
	cp, err := os.ReadFile(name + ".crt")
	if err != nil {
		return nil, nil, nil, nil, false
	}
	kp, err := os.ReadFile(name + ".key")
	die(err)
	c, k := decode(name, cp), decode(name, kp)
	crt, err := x509.ParseCertificate(c)
	die(err)
	key, err := x509.ParsePKCS8PrivateKey(k)
	die(err)
	return crt, key.(crypto.Signer), cp, kp, true
}

func decode(name string, text []byte) []byte {
	block, _ := pem.Decode(text)
	if block == nil {
		die(fmt.Errorf("%s: no PEM", name))
	}
	return block.Bytes
}

func main() {
	port := flag.Int("port", 0, "loopback port of the API server (0: any free one)")
	keepStdin := flag.Bool("ignore-stdin", false, "do not exit when stdin closes")
	keep = flag.Bool("keep", false, "go on with the data and certificates of the last run in -dir, and leave them there")
	dir := flag.String("dir", "", "directory for certs, kubeconfig, log and etcd data")
	flag.Parse() // what follows -- goes to kube-apiserver
	if *dir == "" {
		die(fmt.Errorf("-dir is required"))
	}
	die(os.MkdirAll(*dir, 0o755))
	die(os.Chdir(*dir)) // all paths below are relative: a unix socket's path may have 107 bytes only
	inDir = true
	clean()
	stop := func() { clean(); os.Exit(0) }
	ppid := os.Getppid()
	go func() {
		for os.Getppid() == ppid {
			time.Sleep(200 * time.Millisecond)
		}
		stop()
	}()
	if !*keepStdin {
		go func() { io.Copy(io.Discard, os.Stdin); stop() }()
	}
	log, err := os.Create("apiserver.log")
	die(err)
	die(syscall.Dup3(int(log.Fd()), 2, 0))
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	die(err)
	*port = l.Addr().(*net.TCPAddr).Port
	addr := fmt.Sprintf("https://127.0.0.1:%d", *port)

	ca, caKey, caPEM, _ := issue("ca", &x509.Certificate{Subject: pkix.Name{CommonName: "kube-api-ca"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}, IPAddresses: []net.IP{{127, 0, 0, 1}, {10, 96, 0, 1}}}, ca, caKey)
	_, _, crt, key := issue("admin", &x509.Certificate{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
	if _, err := os.Stat("sa.pub"); !*keep || err != nil {
		sa, err := rsa.GenerateKey(rand.Reader, 2048)
		die(err)
		writePEM("sa.key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(sa), 0o600)
		pub, _ := x509.MarshalPKIXPublicKey(sa.Public())
		writePEM("sa.pub", "PUBLIC KEY", pub, 0o644)
	}

	ec := embed.NewConfig()
	ec.Dir, ec.UnsafeNoFsync, ec.LogLevel, ec.LogOutputs = "etcd", true, "error", []string{"stderr"}
	ec.ListenClientUrls, ec.ListenPeerUrls = sock("etcd:1"), sock("etcd:2")
	ec.AdvertiseClientUrls, ec.AdvertisePeerUrls = ec.ListenClientUrls, ec.ListenPeerUrls
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	etcd, err := embed.StartEtcd(ec)
	die(err)
	<-etcd.Server.ReadyNotify()

	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	s := options.NewServerRunOptions()
	for _, f := range s.Flags().FlagSets {
		fs.AddFlagSet(f)
	}
	die(fs.Parse(append([]string{
		"--etcd-servers=" + ec.ListenClientUrls[0].String(), "--etcd-healthcheck-timeout=10s",
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC", "--allow-privileged=true", "--profiling=false",
		"--client-ca-file=ca.crt", "--tls-cert-file=server.crt", "--tls-private-key-file=server.key",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-signing-key-file=sa.key", "--service-account-key-file=sa.pub",
	}, flag.Args()...)))
	s.SecureServing.Listener, s.SecureServing.BindPort = l, *port
	die(s.GenericServerRunOptions.ComponentGlobalsRegistry.Set())
	ctx := genericserver.SetupSignalContext()
	opts, err := s.Complete(ctx)
	die(err)
	for _, err := range opts.Validate() {
		die(err)
	}
	go func() { die(app.Run(ctx, opts)); stop() }()

	kc := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: t\ncontexts: [{name: t, context: {cluster: t, user: t}}]\n"+
		"clusters: [{name: t, cluster: {server: %q, certificate-authority-data: %s}}]\nusers: [{name: t, user: {client-certificate-data: %s, client-key-data: %s}}]\n", addr, base64.StdEncoding.EncodeToString(caPEM), base64.StdEncoding.EncodeToString(crt), base64.StdEncoding.EncodeToString(key))
	die(os.WriteFile("kubeconfig", []byte(kc), 0o600))
	rc, err := clientcmd.RESTConfigFromKubeConfig([]byte(kc))
	die(err)
	rc.QPS, rc.Burst = 1000, 2000
	cl := kubernetes.NewForConfigOrDie(rc)
	poll := func(what string, f func() error) {
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if err := f(); err == nil {
				return
			} else if time.Now().After(end) {
				die(fmt.Errorf("%s: %w, see apiserver.log", what, err))
			}
		}
	}
	poll("/readyz", func() error { return cl.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() })
	startControllers(ctx, cl, metadata.NewForConfigOrDie(rc), caPEM)
	poll("default serviceaccount", func() error {
		_, err := cl.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	fmt.Println("ready", addr)
	select {}
}

// startControllers runs the few kube-controller-manager loops that a test notices.
func startControllers(ctx context.Context, cl kubernetes.Interface, md metadata.Interface, caPEM []byte) {
	inf := informers.NewSharedInformerFactory(cl, 0)
	core := inf.Core().V1()
	go namespace.NewNamespaceController(ctx, cl, md, cl.Discovery().ServerPreferredNamespacedResources, core.Namespaces(), 5*time.Minute, v1.FinalizerKubernetes).Run(ctx, 4)
	sac, err := serviceaccount.NewServiceAccountsController(core.ServiceAccounts(), core.Namespaces(), cl, serviceaccount.DefaultServiceAccountsControllerOptions())
	die(err)
	go sac.Run(ctx, 2)
	pub, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), cl, caPEM)
	die(err)
	go pub.Run(ctx, 2)
	go endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(), inf.Discovery().V1().EndpointSlices(), 100, cl, 0).Run(ctx, 2)
	started := make(chan struct{})
	all := informerfactory.NewInformerFactory(inf, metadatainformer.NewSharedInformerFactory(md, 0))
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(cl.Discovery()))
	gc, err := garbagecollector.NewGarbageCollector(ctx, cl, md, mapper, garbagecollector.DefaultIgnoredResources(), all, started)
	die(err)
	go gc.Run(ctx, 4, 10*time.Second)
	go gc.Sync(ctx, cl.Discovery(), 2*time.Second)
	all.Start(ctx.Done())
	close(started)
}
