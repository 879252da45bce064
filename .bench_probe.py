import time, sys, torch
sys.path.insert(0, "src/probegrid/probes/fitting")
import newton
print(torch.__version__, torch.cuda.get_device_name())
Cs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
def data(L, n, d, dev, sep=1.0):
    g = torch.Generator(dev).manual_seed(0)
    y = torch.rand(n, generator=g, device=dev) < 0.5
    x = torch.randn(L, n, d, generator=g, device=dev) * (torch.arange(1, d + 1, device=dev) ** -0.5)
    q = torch.linalg.qr(torch.randn(d, d, generator=g, device=dev))[0]
    for l in range(L): x[l] = x[l] @ q
    x += sep * 0.3 * (y.float() * 2 - 1)[:, None] * torch.randn(L, 1, d, generator=g, device=dev) * d ** -0.5
    x -= x.mean(1, keepdim=True); x /= x.std(1, keepdim=True)
    return x, y
# correctness: cuda against cpu
x, y = data(2, 200, 300, "cuda")
a, b = newton.fit_logistic(x, y, Cs + [10.0]); c, e = newton.fit_logistic(x.cpu(), y.cpu(), Cs + [10.0])
print("cuda-cpu", (a.cpu() - c).abs().max().item(), (b.cpu() - e).abs().max().item())
for shape in ((80, 3000, 8192), (80, 1800, 8192), (32, 1800, 4096), (1, 1800, 8192)):
    x, y = data(*shape, "cuda")
    for trial in range(2):
        torch.cuda.reset_peak_memory_stats(); torch.cuda.synchronize(); t = time.time()
        w, bias = newton.fit_logistic(x, y, Cs); torch.cuda.synchronize()
        print(shape, f"{time.time() - t:.2f} s, peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB, x {x.numel() * 4 / 1e9:.1f} GB", flush=True)
    del x, w
from sklearn.linear_model import LogisticRegression
x, y = data(1, 1800, 8192, "cuda"); w, bias = newton.fit_logistic(x, y, Cs)
for k, C in enumerate(Cs):
    for tol in (1e-4, 1e-10):
        X = x[0].double().cpu().numpy() if tol < 1e-5 else x[0].cpu().numpy(); t = time.time()
        m = LogisticRegression(C=C, tol=tol, max_iter=10000).fit(X, y.cpu().numpy())
        print("sklearn", C, tol, f"{time.time() - t:.2f} s", "max |dw|", abs(m.coef_[0] - w[0, k].cpu().numpy()).max(), flush=True)
